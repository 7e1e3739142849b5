/**
 * `npm run crash-test -- --rounds 20 --transport embedded|bullmq|naive [--database sqlite|postgres]`: server, workers and
 * Redis are killed, and Redis is emptied, at random while revocations are committed. Ends with what was committed, lost and
 * received twice, and exits 1 when anything was lost. `naive` commits and then enqueues: it shows that the test can fail.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { oneOf, postgresUrl, runCommand, say, wholeNumber } from '../support/command.ts';
import { startCountersign } from './countersign.ts';
import { crash, summary } from './crash.ts';
import { startNaive } from './naive.ts';

const SHOWN_MAX = 20;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    transport: { type: 'string', default: 'embedded' },
    database: { type: 'string', default: 'sqlite' },
  },
});

await runCommand(async (whenDone) => {
  const rounds = wholeNumber('rounds', values.rounds);
  const transport = oneOf('transport', ['embedded', 'bullmq', 'naive'], values.transport);
  const database = oneOf('database', ['sqlite', 'postgres'], values.database);
  const folder = mkdtempSync(join(tmpdir(), 'countersign-crash-'));
  whenDone(() => rmSync(folder, { recursive: true, force: true }));
  const databaseUrl = database === 'postgres' ? await postgresUrl(whenDone) : null;
  const masterKey = randomBytes(32).toString('base64');
  const start = (receiverUrl: string) =>
    transport === 'naive'
      ? startNaive(folder, receiverUrl, whenDone)
      : startCountersign({ folder, transport, databaseUrl, masterKey, whenDone }, receiverUrl);
  say(`${transport} on ${transport === 'naive' ? 'sqlite' : database}, ${rounds} rounds`);
  const result = await crash({ rounds, start, whenDone, say });
  for (const id of result.lost.slice(0, SHOWN_MAX)) say(`Lost: ${id}`);
  for (const id of result.renamed.slice(0, SHOWN_MAX)) say(`Under two ids: ${id}`);
  say(`${result.disturbances.kill} kills, ${result.disturbances.flush} times FLUSHALL`);
  say(summary(result));
  return result.lost.length + result.renamed.length === 0;
});
