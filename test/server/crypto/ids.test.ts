import { expect, it } from 'vitest';
import { derivedId, hexId, sortableId } from '../../../server/crypto/ids.ts';

const NOW = Date.UTC(2026, 0, 6, 12);

it('sortableId() is a prefix and 27 letters or digits, and sorts by second of creation', () => {
  const ids = Array.from({ length: 50 }, (_, i) => sortableId('mch_', NOW + i * 1000));
  expect(ids.every((id) => /^mch_[0-9A-Za-z]{27}$/.test(id))).toBe(true);
  expect(ids.toSorted()).toEqual(ids);
});

it('sortableId() keeps its length from the epoch it counts from to the last second it can hold', () => {
  expect(sortableId('evt_', 1_400_000_000_000)).toHaveLength(31);
  expect(sortableId('evt_', (1_400_000_000 + 2 ** 32 - 1) * 1000)).toHaveLength(31);
});

it('hexId() is a prefix and 32 hex digits, and sorts by millisecond of creation', () => {
  const ids = Array.from({ length: 50 }, (_, i) => hexId('mt_', NOW + i));
  expect(ids.every((id) => /^mt_[0-9a-f]{32}$/.test(id))).toBe(true);
  expect(ids.toSorted()).toEqual(ids);
});

it('no two ids of one instant are the same', () => {
  const ids = Array.from({ length: 5_000 }, () => [hexId('ak_', NOW), sortableId('mch_', NOW)]).flat();
  expect(new Set(ids).size).toBe(10_000);
});

it('derivedId() is one id for one key, and tells nothing of it', () => {
  const id = derivedId('ins_', Buffer.alloc(32, 1));
  expect(id).toMatch(/^ins_[0-9A-Za-z]{27}$/);
  expect(derivedId('ins_', Buffer.alloc(32, 1))).toBe(id);
  expect(derivedId('ins_', Buffer.alloc(32, 2))).not.toBe(id);
});
