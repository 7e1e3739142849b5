import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { openStore } from '../../db/store.ts';
import { describeOnEachDialect, emptyDatabase, freshFolder, MASTER_KEY } from '../support/deps.ts';

/** Runs a main of the server as a process; answers how it ended and all it said. */
async function run(script: string, env: Record<string, string>, args: string[] = []) {
  const path = new URL(`../../server/${script}.ts`, import.meta.url).pathname;
  const child = spawn(process.execPath, ['--import', 'tsx', path, ...args], {
    env: { PATH: process.env['PATH'] ?? '', COUNTERSIGN_LOG_LEVEL: 'fatal', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const [code] = await once(child, 'close');
  return { code, said };
}

describeOnEachDialect('npm run job, npm run audit:verify', (dialect) => {
  it('run a job, find the log whole, and name the event that was changed', { timeout: 120_000 }, async () => {
    const dataDir = freshFolder();
    const location = dialect === 'postgres' ? await emptyDatabase(dialect) : join(dataDir, 'countersign.db');
    const env: Record<string, string> = {
      COUNTERSIGN_DATA_DIR: dataDir,
      COUNTERSIGN_MASTER_KEY: MASTER_KEY.toString('hex'),
      ...(dialect === 'postgres' && { DATABASE_URL: location }),
    };
    expect(await run('audit-verify', env)).toMatchObject({ code: 1 });
    expect((await run('job', env, ['nothing'])).said).toContain('one of key-rotation, expiry-sweep');
    expect(await run('job', env, ['audit-checkpoint'])).toMatchObject({
      code: 0,
      said: expect.stringContaining('audit-checkpoint: done, 1 in all'),
    });

    const store = await openStore({ location });
    const { eventCheckpoints, events } = store.read.tables;
    const [checkpoint] = await store.read.db.select().from(eventCheckpoints);
    const file = join(dataDir, 'checkpoint.txt');
    writeFileSync(file, `${checkpoint?.jws}\n`);
    const whole = await run('audit-verify', env, ['--checkpoint', file]);
    expect(whole).toMatchObject({
      code: 0,
      said: expect.stringContaining('The log is whole: events 1 to 2'),
    });
    const parts = `${checkpoint?.jws}`.split('.');
    const forged = await run('audit-verify', env, [`--checkpoint=${parts[0]}.${parts[1]}.${'A'.repeat(86)}`]);
    expect(forged).toMatchObject({ code: 1, said: expect.stringContaining('(checkpoint_forged, at 0)') });
    await store.tx(({ db }) => db.update(events).set({ actor_id: 'sk_other' }).where(eq(events.seq, 1)));
    await store.close();
    const changed = await run('audit-verify', env);
    expect(changed).toMatchObject({ code: 1, said: expect.stringContaining('(changed, at 1)') });
  });
});

it('audit:verify takes a mistyped file name for what it is, not for a forged checkpoint', {
  timeout: 60_000,
}, async () => {
  const folder = freshFolder();
  const other = join(folder, 'other.txt');
  writeFileSync(other, 'sk_0123456789abcdef\n');
  for (const [given, found] of [
    [join(folder, 'nosuch.txt'), 'found what is no checkpoint, and no file that can be read (ENOENT)'],
    ['log.checkpoint.jws', 'found what is no checkpoint, and no file that can be read (ENOENT)'],
    [folder, 'found what is no checkpoint, and no file that can be read (EISDIR)'],
    [other, 'found a file that holds none'],
  ] as const) {
    const { code, said } = await run('audit-verify', {}, ['--checkpoint', given]);
    expect(code).toBe(1);
    expect(said).toContain(
      `--checkpoint: wanted a checkpoint, or the name of a file that it is in, ${found}`,
    );
    expect(said).not.toMatch(/not as it was written|sk_/);
  }
});
