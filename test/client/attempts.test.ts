import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { persist } from '../../client/attempts.ts';
import { CountersignError, type ErrorCode } from '../../server/errors.ts';

const waits = vi.hoisted((): number[] => []);

vi.mock('node:timers/promises', () => ({
  setTimeout: async (ms: number) => void waits.push(ms),
}));

/** Fails with this code for as long as it is asked; answers how long was waited between the attempts. */
async function waitsOf(random: number, retries: number, code: ErrorCode = 'unavailable'): Promise<number[]> {
  waits.length = 0;
  vi.spyOn(Math, 'random').mockReturnValue(random);
  onTestFinished(() => void vi.restoreAllMocks());
  const calling = persist('x', true, { timeoutMs: 600_000, retries }, () =>
    Promise.reject(new CountersignError(code, 'not now')),
  );
  await expect(calling).rejects.toMatchObject({ code });
  return [...waits];
}

describe('persist()', () => {
  it('waits at most twice as long each time, up to a second', async () => {
    expect(await waitsOf(1, 7)).toEqual([50, 100, 200, 400, 800, 1000, 1000]);
  });

  it('waits a part of that which chance decides: callers that failed together come back apart', async () => {
    expect(await waitsOf(0.25, 3)).toEqual([12.5, 25, 50]);
    expect(await waitsOf(0, 3)).toEqual([0, 0, 0]);
  });

  it.each(['timeout', 'network', 'unavailable', 'outcome_unknown'] as const)(
    'goes on after %s',
    async (code) => {
      expect(await waitsOf(1, 2, code)).toEqual([50, 100]);
    },
  );

  it('does not wait after what will not pass', async () => {
    expect(await waitsOf(1, 3, 'forbidden')).toEqual([]);
  });
});
