import { describe, expect, it } from 'vitest';
import {
  ceilingResult,
  differenceResult,
  merged,
  missingResult,
  type Result,
  rateResult,
  renderLine,
  renderResults,
  timeResult,
} from '../../bench/results.ts';

const rounds = (...rates: number[]) => rates.map((perSecond) => ({ perSecond, busy: 0.98 }));

const RATED = { name: 'verify', against: 'a floor', unit: 'req/s', atLeast: 0.75 };

describe('rateResult()', () => {
  it('answers the median and spread of ours, and the median of the ratios round by round', () => {
    // The ratio of the medians would be 1.
    expect(rateResult(RATED, rounds(100, 300, 200), rounds(200, 400, 100))).toEqual({
      name: 'verify',
      value: 200,
      unit: 'req/s',
      spread: [100, 300],
      against: 'a floor',
      ratio: 0.75,
      gate: '≥ 0.75 ×',
      pass: true,
      busy: [0.98, 0.98],
    });
  });

  it('fails just below the gate, though it is shown as the gate', () => {
    expect(rateResult(RATED, rounds(749.9), rounds(1000))).toMatchObject({ ratio: 0.75, pass: false });
  });

  it('does not pass where theirs was not measured', () => {
    expect(rateResult(RATED, rounds(100), []).pass).toBe(false);
  });
});

describe('timeResult()', () => {
  const compared = { name: 'verify-10m', against: 'few', atMost: 1.5 };

  it('answers the time of one of ours, and how many times that of theirs it is', () => {
    expect(timeResult(compared, rounds(10_000, 8_000), rounds(12_000, 12_000))).toMatchObject({
      value: 113,
      unit: 'µs/req',
      spread: [100, 125],
      ratio: 1.35,
      gate: '≤ 1.5 ×',
      pass: true,
    });
  });

  it('fails above the gate', () => {
    expect(timeResult(compared, rounds(1000), rounds(1501)).pass).toBe(false);
  });
});

describe('ceilingResult()', () => {
  it.each([
    [[1, 5, 100], true],
    [[1, 5.01, 100], false],
  ])('judges the median of %j', (values, pass) => {
    expect(ceilingResult('p99', 'ms', 5, values)).toMatchObject({
      against: null,
      ratio: null,
      gate: '≤ 5',
      pass,
    });
  });
});

describe('differenceResult()', () => {
  const compared = { name: 'timing', against: 'a live key' };

  it.each([
    ['later', [2.9, 3, 3.1], true],
    ['later', [3, 3.1, 3.2], false],
    ['sooner', [-3.2, -3.1, -3], false],
  ])('judges a difference by the noise, be it %s: %j', (_, differences, pass) => {
    const result = differenceResult(compared, differences, 1);
    expect(result).toMatchObject({ unit: 'µs', against: 'a live key, noise 1 µs', pass });
  });

  it('passes nothing under noise that would hide anything', () => {
    const result = differenceResult(compared, [0], 5.1);
    expect(result).toMatchObject({ value: 0, pass: null, missing: 'wanted noise of at most 5 µs' });
  });
});

describe('missingResult()', () => {
  it('is no pass, with ours or without', () => {
    expect(missingResult(RATED, 'no network')).toEqual({
      name: 'verify',
      value: null,
      unit: 'req/s',
      spread: null,
      against: 'a floor',
      ratio: null,
      gate: '≥ 0.75 ×',
      pass: null,
      missing: 'no network',
    });
    const withOurs = missingResult(RATED, 'no network', rounds(100, 300));
    expect(withOurs).toMatchObject({ value: 200, spread: [100, 300], ratio: null, pass: null });
  });
});

const row = (name: string, against: string | null, value = 1): Result => ({
  name,
  value,
  unit: 'req/s',
  spread: [1, 1],
  against,
  ratio: null,
  gate: '≥ 1 ×',
  pass: true,
});

describe('merged()', () => {
  it('replaces all rows of a name that was measured, keeps the others, and orders by name', () => {
    const earlier = [row('verify', 'a floor'), row('verify', 'a peer'), row('mint', 'a floor')];
    const measured = [row('verify', 'b'), row('verify', 'a', 2), row('timing', 'c')];
    expect(merged(earlier, measured).map(({ name, against }) => [name, against])).toEqual([
      ['mint', 'a floor'],
      ['timing', 'c'],
      ['verify', 'b'],
      ['verify', 'a'],
    ]);
  });
});

describe('renderLine()', () => {
  it.each([
    [rateResult(RATED, rounds(80), rounds(100)), 'verify: 80 req/s, 0.8 × a floor (gate ≥ 0.75 ×): pass'],
    [rateResult(RATED, rounds(70), rounds(100)), 'verify: 70 req/s, 0.7 × a floor (gate ≥ 0.75 ×): FAIL'],
    [missingResult(RATED, 'no network'), 'verify:, a floor (gate ≥ 0.75 ×): not measured: no network'],
    [ceilingResult('rss', 'MB', 150, [120]), 'rss: 120 MB (gate ≤ 150): pass'],
  ])('says the value, the comparison and the verdict', (result, line) => {
    expect(renderLine(result)).toBe(line);
  });
});

describe('renderResults()', () => {
  const page = renderResults(
    [
      rateResult(RATED, rounds(80, 90), rounds(100, 100)),
      rateResult(RATED, rounds(70), rounds(100)),
      missingResult(RATED, 'no network'),
      ceilingResult('rss', 'MB', 150, [120]),
    ],
    'two cores',
  );

  it('has a row for each result', () => {
    expect(page).toContain(
      '| verify | 85 req/s | 80 – 90 | a floor | 0.85 | 0.98 / 0.98 | ≥ 0.75 × | pass |',
    );
    expect(page).toContain(
      '| verify | 70 req/s | 70 – 70 | a floor | 0.7 | 0.98 / 0.98 | ≥ 0.75 × | **fail** |',
    );
    expect(page).toContain('| verify | – | – | a floor | – | – | ≥ 0.75 × | not measured: no network |');
    expect(page).toContain('| rss | 120 MB | 120 – 120 | – | – | – | ≤ 150 | pass |');
  });

  it('says what it was measured on', () => {
    expect(page).toContain('two cores');
  });
});
