import { inflateSync } from 'node:zlib';
import { expect, it } from 'vitest';
import {
  encodeStatusBits,
  newStatusBits,
  STATUS_LIST_LENGTH,
  setStatusBit,
  shuffledIndexes,
} from '../../../server/crypto/status-list.ts';

/** The indexes whose bits are set, read as the draft's own program reads them (`src/status_list.py`, get). */
function setIn(bits: Buffer): number[] {
  const indexes = Array.from({ length: bits.length * 8 }, (_, index) => index);
  return indexes.filter((index) => (((bits[Math.floor(index / 8)] ?? 0) >> (index % 8)) & 1) === 1);
}

it('encodes the bits of section 4.1 as section 4.2 has them, the least significant first', async () => {
  const bits = Buffer.alloc(2);
  for (const index of [0, 3, 4, 5, 7, 8, 9, 13, 15]) setStatusBit(bits, index);
  expect(bits.toString('hex')).toBe('b9a3');
  expect(await encodeStatusBits(bits)).toBe('eNrbuRgAAhcBXQ');
});

it('sets the bits of the test vector of appendix C.1, and only them', async () => {
  const vector =
    'eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAAAAAAAAAAAAAAAJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb';
  const listed = [0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345];
  const theirs = inflateSync(Buffer.from(vector, 'base64url'));
  expect(setIn(theirs)).toEqual(listed);
  const ours = Buffer.alloc(theirs.length);
  for (const index of listed) setStatusBit(ours, index);
  expect(ours.equals(theirs)).toBe(true);
  expect(inflateSync(Buffer.from(await encodeStatusBits(ours), 'base64url')).equals(theirs)).toBe(true);
});

it('has a bit for every index', () => {
  const bits = newStatusBits();
  setStatusBit(bits, STATUS_LIST_LENGTH - 1);
  expect(setIn(bits)).toEqual([STATUS_LIST_LENGTH - 1]);
});

it('shuffledIndexes() has every index once, the same from the same seed and others from another', () => {
  const order = shuffledIndexes(Buffer.alloc(32, 1));
  expect(order).toHaveLength(STATUS_LIST_LENGTH);
  expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
  expect(shuffledIndexes(Buffer.alloc(32, 1))).toEqual(order);
  const other = shuffledIndexes(Buffer.alloc(32, 2));
  expect(order.filter((index, place) => other[place] === index).length).toBeLessThan(20);
});

it('shuffledIndexes() spreads what is handed out first over the whole list', () => {
  const counts = Array<number>(16).fill(0);
  for (let seed = 0; seed < 8; seed++) {
    for (const index of shuffledIndexes(Buffer.alloc(32, seed)).subarray(0, 1_024)) {
      const part = index >> 13;
      counts[part] = (counts[part] ?? 0) + 1;
    }
  }
  // 512 are to be expected in each: five standard deviations to either side.
  for (const count of counts) expect(Math.abs(count - 512)).toBeLessThan(110);
});
