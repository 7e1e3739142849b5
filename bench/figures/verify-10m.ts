/** Verifying over HTTP with ten million API keys, any of them as likely, against ten thousand. */
import { assertRoom, fill, keyValue } from '../fill.ts';
import { makeScratch } from '../leftovers.ts';
import { type MeasuredServer, startCountersign } from '../processes.ts';
import { verifyRequests } from '../requests.ts';
import { type Result, timeResult } from '../results.ts';
import { byRequests, inTurn } from '../rounds.ts';

const MANY = 10_000_000;
const FEW = 10_000;
/** More than are asked for in one round. */
const SAMPLE = 200_000;
/** Longer than usage is gathered for, so that each round pays for writing it. */
const ROUND_MS = 8_000;

export async function measureVerify10m(): Promise<Result[]> {
  const many = makeScratch();
  const few = makeScratch();
  assertRoom(many.folder, MANY);
  const started = performance.now();
  const say = (text: string) =>
    process.stdout.write(`  ${text}, ${Math.round((performance.now() - started) / 1000)} s\n`);
  await fill(few.folder, FEW, () => {});
  await fill(many.folder, MANY, say);

  const servers = [
    await startCountersign({ dataDir: many.folder }),
    await startCountersign({ dataDir: few.folder }),
  ] as const;
  const rounds = await inTurn(
    [byRequests(servers[0], sample(servers[0], MANY)), byRequests(servers[1], sample(servers[1], FEW))],
    {
      roundMs: ROUND_MS,
    },
  );
  await Promise.all(servers.map((server) => server.stop()));
  many.remove();
  few.remove();
  return [timeResult({ name: 'verify-10m', against: 'ten thousand keys', atMost: 1.5 }, ...rounds)];
}

/** Keys drawn uniformly from all of them. */
const sample = ({ adminKey }: MeasuredServer, count: number): Buffer[] =>
  verifyRequests(
    adminKey,
    Array.from({ length: SAMPLE }, () => keyValue(Math.floor(Math.random() * count))),
  );
