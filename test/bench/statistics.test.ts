import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { median, quantile, rootMeanSquare, shuffled } from '../../bench/statistics.ts';

describe('median()', () => {
  it.each([
    ['the one in the middle, in whatever order', [9, 1, 5], 5],
    ['the mean of the two in the middle', [4, 1, 3, 100], 3.5],
    ['the only one', [7], 7],
    ['0 of none', [], 0],
  ])('answers %s', (_, values, expected) => {
    expect(median(values)).toBe(expected);
  });

  it('compares numbers, not their digits, and leaves the list as it was', () => {
    const values = [100, 20, 3];
    expect(median(values)).toBe(20);
    expect(values).toEqual([100, 20, 3]);
  });
});

describe('quantile()', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);

  it.each([
    [0, 1],
    [0.5, 51],
    [0.99, 100],
    [1, 100],
  ])('answers the value that a share of %d lies below', (share, expected) => {
    expect(quantile(hundred, share)).toBe(expected);
  });

  it('answers 0 of none', () => {
    expect(quantile([], 0.99)).toBe(0);
  });
});

it('rootMeanSquare() takes no account of the sign, and of large values more', () => {
  expect(rootMeanSquare([3, -3])).toBe(3);
  expect(rootMeanSquare([1, -7])).toBe(5);
  expect(rootMeanSquare([])).toBe(0);
});

it('shuffled() answers the same items and leaves the list as it was', () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), (items) => {
      const before = [...items];
      const numeric = (a: number, b: number) => a - b;
      expect(shuffled(items).sort(numeric)).toEqual([...items].sort(numeric));
      expect(items).toEqual(before);
    }),
  );
});

it('shuffled() puts every item in every place', () => {
  const first = new Set(Array.from({ length: 200 }, () => shuffled([1, 2, 3])[0]));
  expect(first).toEqual(new Set([1, 2, 3]));
});
