import { expect, it } from 'vitest';
import type { Countersign } from '../../client/index.ts';
import { CountersignError } from '../../server/errors.ts';
import { exportEvents } from '../../server/export-events.ts';

/** A log of `length` events, that answers with what `failures` holds first. */
function logOf(length: () => number, failures: Error[] = []) {
  const list = async ({ after = 0, limit = 100 }: { after?: number; limit?: number }) => {
    const failure = failures.shift();
    if (failure) throw failure;
    const data = Array.from({ length: length() }, (_, i) => ({ seq: i + 1 })).slice(after, after + limit);
    return { data, nextAfter: data.at(-1)?.seq ?? after, nextBefore: null };
  };
  return async () => ({ events: { list } }) as unknown as Countersign;
}

function terminal() {
  const written: string[] = [];
  const notes: string[] = [];
  const seqs = () =>
    written
      .join('')
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line).seq);
  return {
    seqs,
    notes,
    write: (lines: string) => written.push(lines),
    note: (text: string) => void notes.push(text),
  };
}

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

it('exportEvents() writes one line for each event after a sequence, and answers the last', async () => {
  const out = terminal();
  const never = new AbortController().signal;
  expect(
    await exportEvents(
      logOf(() => 1_203),
      { after: 2, follow: false },
      out,
      never,
    ),
  ).toBe(1_203);
  expect(out.seqs()).toEqual(numbers(3, 1_203));
});

it('exportEvents() waits for more and for a server that is away, without a gap, until it is interrupted', async () => {
  const out = terminal();
  const interruption = new AbortController();
  let length = 3;
  const failures: Error[] = [];
  const following = exportEvents(
    logOf(() => length, failures),
    { after: 0, follow: true },
    out,
    interruption.signal,
  );
  await expect.poll(() => out.seqs().length).toBe(3);
  failures.push(new CountersignError('network', 'gone'), new CountersignError('unavailable', 'starting'));
  length = 5;
  await expect.poll(() => out.seqs().length, { timeout: 5_000 }).toBe(5);
  interruption.abort();
  expect(await following).toBe(5);
  expect(out.seqs()).toEqual([1, 2, 3, 4, 5]);
  expect(out.notes).toEqual(['network: gone; waiting for the server', 'The server answers again']);
});

it('exportEvents() gives up on what waiting does not mend', async () => {
  const refusal = new CountersignError('forbidden', 'no');
  const { signal } = new AbortController();
  const exporting = exportEvents(
    logOf(() => 1, [refusal]),
    { after: 0, follow: true },
    terminal(),
    signal,
  );
  await expect(exporting).rejects.toBe(refusal);
});
