/**
 * `npm run race-test -- --keys 10000 --processes 3 --database sqlite|postgres --transport embedded|bullmq [--verifier|--naive]`:
 * servers on one database, credentials that are verified at all of them while they are revoked at any, servers and Redis
 * killed in between. Exits 1 when one was valid after its end, or with `--verifier` 2 s after it. `--naive` shows that it can.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { oneOf, postgresUrl, runCommand, say, wholeNumber } from '../support/command.ts';
import type { WhenDone } from '../support/deps.ts';
import { startFleet, TRANSPORTS } from './fleet.ts';
import { type RaceResult, race } from './race.ts';

const DATABASES = ['sqlite', 'postgres'] as const;
const NAIVE_MS = 2_000;
const SHOWN_MAX = 20;

const { values } = parseArgs({
  options: {
    keys: { type: 'string', default: '10000' },
    processes: { type: 'string', default: '3' },
    database: { type: 'string', default: 'sqlite' },
    transport: { type: 'string', default: 'embedded' },
    kills: { type: 'string', default: '10' },
    verifier: { type: 'boolean', default: false },
    naive: { type: 'boolean', default: false },
  },
});

await runCommand(run);

async function run(whenDone: WhenDone): Promise<boolean> {
  const keys = wholeNumber('keys', values.keys);
  const processes = wholeNumber('processes', values.processes);
  const kills = wholeNumber('kills', values.kills);
  const transport = oneOf('transport', TRANSPORTS, values.transport);
  const database = oneOf('database', DATABASES, values.database);
  const folder = mkdtempSync(join(tmpdir(), 'countersign-race-'));
  whenDone(() => rmSync(folder, { recursive: true, force: true }));
  const databaseUrl = database === 'postgres' ? await postgresUrl(whenDone) : null;
  const fleet = await startFleet({ folder, databaseUrl, processes, transport, whenDone });
  say(
    `${processes} servers on ${database}, ${transport}${values.naive ? ', naive' : ''}${values.verifier ? ', through verifiers' : ''}`,
  );
  const redisKills = transport === 'bullmq' ? kills : 0;
  const started = performance.now();
  const result = await race(fleet, {
    keys,
    serverKills: kills,
    redisKills,
    throughVerifiers: values.verifier,
    ...(values.naive && { rememberMs: NAIVE_MS }),
    say,
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  report(result, `${kills} kills of a server, ${redisKills} of Redis, ${seconds} s`);
  return result.zombies.length + result.lost.length === 0;
}

function report({ keys, tokens, verifications, webhooks, ended, zombies, lost }: RaceResult, rest: string) {
  for (const zombie of zombies.slice(0, SHOWN_MAX)) say(`Zombie: ${zombie}`);
  for (const each of lost.slice(0, SHOWN_MAX)) say(`Lost: ${each}`);
  say(
    `Ended by ${Object.entries(ended)
      .map(([way, count]) => `${way} ${count}`)
      .join(', ')}`,
  );
  say(`M2M tokens ${tokens}, webhooks ${webhooks}, lost ${lost.length}, ${rest}`);
  say(`keys ${keys}, verifications ${verifications}, zombies ${zombies.length}`);
}
