/** Verifying an API key by the typed client, from Node. */
import { createCountersign } from '../../client/index.ts';
import { seedValues } from '../floors/floor.ts';
import { answerTo, createKeys } from '../keys.ts';
import { startCountersign, startFloor } from '../processes.ts';
import { post } from '../requests.ts';
import { type Result, rateResult } from '../results.ts';
import { byCalls, byRequests, inTurn } from '../rounds.ts';

export async function measureVerifyClient(): Promise<Result[]> {
  const server = await startCountersign();
  const keys = await createKeys(server);
  const floor = await startFloor('trpc-express', { answer: await answerTo(server, keys) });
  const client = createCountersign({ url: server.url, secretKey: server.adminKey });
  const [ours, theirs] = await inTurn([
    byCalls(
      server,
      (call) => client.verify({ credential: keys[call % keys.length] ?? '' }),
      (answer) => answer.valid,
    ),
    byRequests(
      floor,
      seedValues().credentials.map((credential) => post('/trpc/verify', null, { credential })),
    ),
  ]);
  await Promise.all([server.stop(), floor.stop()]);
  const rated = { name: 'verify-client', against: 'tRPC on Express', unit: 'calls/s', atLeast: 3 };
  return [rateResult(rated, ours, theirs)];
}
