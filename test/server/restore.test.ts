import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openStore, type Store } from '../../db/store.ts';
import { loadConfig } from '../../server/config.ts';
import { latestInstant, noteInstant } from '../../server/domain/installation.ts';
import { describeOnEachDialect, freshDatabase, freshFolder } from '../support/deps.ts';
import { epochOf } from '../support/feed.ts';
import { type RunningServer, runProgram, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

/** A place where an installation may be: its environment. */
async function place(dialect: 'sqlite' | 'postgres', port?: number) {
  const dataDir = freshFolder();
  const env = {
    COUNTERSIGN_DATA_DIR: dataDir,
    COUNTERSIGN_MASTER_KEY: MASTER_KEY,
    // Who issued a JWT is the same, wherever it is restored.
    PORT: String(port ?? (await freePort())),
  };
  return {
    dataDir,
    env: dialect === 'sqlite' ? env : { ...env, DATABASE_URL: await freshDatabase('postgres') },
  };
}

type Place = Awaited<ReturnType<typeof place>>;

const start = ({ dataDir, env }: Place, adminKey?: string) =>
  startServer(dataDir, {
    ...env,
    COUNTERSIGN_LOG_LEVEL: 'warn',
    ...(adminKey !== undefined && { COUNTERSIGN_BOOTSTRAP_KEY: adminKey }),
  });

async function inDatabase<T>({ env }: Place, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore({ location: loadConfig({ ...env }).databaseLocation });
  return work(store).finally(store.close);
}

const BOOTSTRAP = `sk_${'b'.repeat(48)}`;

async function create(server: RunningServer, path: string, input: object) {
  const { status, body } = await server.call(path, input, BOOTSTRAP);
  expect([path, status]).toEqual([path, 200]);
  return body.result.data;
}

const reasonOf = async (server: RunningServer, credential: string, audience?: string) => {
  const input = { credential, ...(audience && { audience }) };
  const { body } = await server.call('credentials.verify', input, BOOTSTRAP);
  return body.result.data.valid ? 'valid' : body.result.data.reason;
};

async function exportLog(server: RunningServer, path: string) {
  const { data } = (await server.call('events.list', { limit: 500 }, BOOTSTRAP)).body.result.data;
  writeFileSync(path, data.map((event: object) => `${JSON.stringify(event)}\n`).join(''));
}

/** An installation of all kinds of credentials, a backup of it, and what was taken away after that, exported. */
async function backedUp(dialect: 'sqlite' | 'postgres') {
  const from = await place(dialect);
  const server = await start(from, BOOTSTRAP);
  const sender = await create(server, 'machines.create', { name: 'sender' });
  const receiver = await create(server, 'machines.create', { name: 'receiver' });
  const edge = { fromMachineId: sender.id, toMachineId: receiver.id };
  await create(server, 'machineScopes.create', { ...edge, scopes: ['x', 'y'] });
  const leaky = await create(server, 'machines.create', { name: 'leaky', mayCall: [receiver.id] });
  const { token: leaked } = (await server.call('m2mTokens.create', {}, leaky.secret)).body.result.data;
  const mint = async (format: string) =>
    (await server.call('m2mTokens.create', { format }, sender.secret)).body.result.data;
  const tokens = { opaque: await mint('opaque'), jwt: await mint('jwt'), kept: await mint('jwt') };
  const newKey = (name: string, subject = 'user_1') => create(server, 'apiKeys.create', { name, subject });
  const keys = {
    kept: await newKey('kept'),
    revoked: await newKey('revoked'),
    before: await newKey('before'),
    rotated: await newKey('rotated'),
    toggled: await newKey('toggled'),
    ofAll: await newKey('of all', 'org_7'),
    overlapping: await newKey('overlapping'),
    cancelled: await newKey('cancelled'),
  };
  await create(server, 'apiKeys.revoke', { id: keys.before.id });
  await create(server, 'apiKeys.rotate', { id: keys.overlapping.id, overlapSeconds: 86_400 });
  const file = join(freshFolder(), 'backup.db');
  const backup = await runProgram('backup', [file], from.env);

  await create(server, 'apiKeys.revoke', { id: keys.revoked.id });
  await create(server, 'apiKeys.rotate', { id: keys.rotated.id, overlapSeconds: 0 });
  const [admin] = (await server.call('secretKeys.list', {}, BOOTSTRAP)).body.result.data.data;
  await create(server, 'secretKeys.rotate', { id: admin.id, overlapSeconds: 3600 });
  await create(server, 'apiKeys.disable', { id: keys.toggled.id });
  await create(server, 'apiKeys.enable', { id: keys.toggled.id });
  await create(server, 'apiKeys.revokeAll', { subject: 'org_7' });
  await create(server, 'm2mTokens.revoke', { id: tokens.opaque.id });
  await create(server, 'm2mTokens.revoke', { id: tokens.jwt.id });
  await create(server, 'apiKeys.completeRotation', { id: keys.overlapping.id });
  await create(server, 'apiKeys.rotate', { id: keys.cancelled.id, overlapSeconds: 3600 });
  await create(server, 'apiKeys.cancelRotation', { id: keys.cancelled.id });
  await create(server, 'machines.rotateSecret', { id: leaky.id, compromised: true });
  await create(server, 'machineScopes.update', { ...edge, scopes: ['x'] });
  const late = await newKey('late');
  await create(server, 'apiKeys.revoke', { id: late.id });
  const log = join(freshFolder(), 'log.ndjson');
  await exportLog(server, log);
  const epoch = await epochOf(server.url, BOOTSTRAP);
  await server.stop();
  return { backup, file, log, epoch, keys, tokens, leaked, receiver, port: Number(from.env.PORT) };
}

describeOnEachDialect('restoring a backup', (dialect) => {
  it('with the exported log has every revocation back, and an epoch of its own', {
    timeout: 120_000,
  }, async () => {
    const { backup, file, log, epoch, keys, tokens, leaked, receiver, port } = await backedUp(dialect);
    expect(backup).toMatchObject({ code: 0, stdout: expect.stringMatching(/which was read back/) });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file).includes(MASTER_KEY)).toBe(false);

    const to = await place(dialect, port);
    const restored = await runProgram('restore', [file, '--events', log], to.env);
    // That the last admin key was rotated is the one thing that is not done again.
    expect([restored.code, restored.stderr]).toEqual([2, '']);
    expect(restored.stdout).toMatch(/^Not done: .*secret_key\.secret_rotated.*rotate it$/m);
    expect(restored.stdout).toMatch(/8 revocations were done again, 1 were of things made after the backup/);
    const server = await start(to);
    const found = Object.fromEntries(
      await Promise.all(
        Object.entries(keys).map(async ([name, { secret }]) => [name, await reasonOf(server, secret)]),
      ),
    );
    expect(found).toMatchObject({
      kept: 'valid',
      toggled: 'valid',
      before: 'revoked',
      revoked: 'revoked',
      ofAll: 'revoked',
      overlapping: 'expired',
      cancelled: 'valid',
    });
    expect(found['rotated']).not.toBe('valid');
    const ofTokens = await Promise.all(
      [tokens.opaque, tokens.jwt, tokens.kept].map(({ token }) => reasonOf(server, token, receiver.id)),
    );
    expect(ofTokens).toEqual(['revoked', 'revoked', 'valid']);
    expect(await reasonOf(server, leaked, receiver.id)).toBe('revoked');
    const kept = await create(server, 'credentials.verify', {
      credential: tokens.kept.token,
      audience: receiver.id,
    });
    expect(kept.scopes).toEqual(['x']);
    expect(await epochOf(server.url, BOOTSTRAP)).not.toBe(epoch);
    await create(server, 'jobs.run', { name: 'audit-checkpoint' });
    await server.stop();
    expect(await runProgram('audit-verify', [], to.env)).toMatchObject({ code: 0 });
  });

  it('without a log says that nothing revoked since is, and changes nothing where something is', {
    timeout: 120_000,
  }, async () => {
    const { file, keys } = await backedUp(dialect);
    const to = await place(dialect);
    const restored = await runProgram('restore', [file], to.env);
    expect(restored).toMatchObject({ code: 0, stdout: expect.stringContaining('Without') });
    const again = await runProgram('restore', [file], to.env);
    expect(again).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/move all of it away first|in use/),
    });
    const server = await start(to);
    expect(await reasonOf(server, keys.revoked.secret)).toBe('valid');
    await server.stop();
  });

  it('begins no earlier than the servers of before were, whatever the clock says', {
    timeout: 60_000,
  }, async () => {
    const [from, to] = [await place(dialect), await place(dialect)];
    await (await start(from, BOOTSTRAP)).stop();
    const ahead = Date.now() + 3_600_000;
    await inDatabase(from, (store) => noteInstant(store, ahead));
    const file = join(freshFolder(), 'backup.db');
    expect(await runProgram('backup', [file], from.env)).toMatchObject({ code: 0, stderr: '' });
    expect(await runProgram('restore', [file], to.env)).toMatchObject({ code: 0 });
    expect(await inDatabase(to, latestInstant)).toBeGreaterThanOrEqual(ahead);
  });
});

it('a backup is not written over another file', async () => {
  const { env } = await place('sqlite');
  const file = join(freshFolder(), 'there');
  writeFileSync(file, 'kept');
  const { code, stderr } = await runProgram('backup', [file], env);
  expect([code, readFileSync(file, 'utf8')]).toEqual([1, 'kept']);
  expect(stderr).toMatch(/not there yet/);
});

it('restoring refuses another master key, another log, a gap in it, and a file that was damaged', {
  timeout: 120_000,
}, async () => {
  const { file, log } = await backedUp('sqlite');
  const to = await place('sqlite');
  const refused = async (args: string[], env: NodeJS.ProcessEnv = to.env) => {
    const { code, stderr, stdout } = await runProgram('restore', args, env);
    expect([code, existsSync(join(to.dataDir, 'restoring.db'))]).toEqual([1, false]);
    return stderr + stdout;
  };
  const other = { ...to.env, COUNTERSIGN_MASTER_KEY: Buffer.alloc(32, 8).toString('base64') };
  expect(await refused([file], other)).toMatch(/master key is not the one/);
  const folder = freshFolder();
  mkdirSync(folder, { recursive: true });
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  const write = (name: string, content: string[]) => {
    writeFileSync(join(folder, name), `${content.join('\n')}\n`);
    return join(folder, name);
  };
  expect(await refused([file, '--events', write('gap', lines.toSpliced(-3, 1))])).toMatch(
    /lacks events before/,
  );
  const foreign = lines.map((line) => line.replace(/"evt_\w+"/, '"evt_other"'));
  expect(await refused([file, '--events', write('foreign', foreign)])).toMatch(
    /not of the log that the backup ends/,
  );
  // Written by an export that was begun anew, and cut off: that is no gap.
  const again = [...lines.slice(0, 3), ...lines, '{"seq":'];
  const elsewhere = await place('sqlite');
  const ran = await runProgram('restore', [file, '--events', write('again', again)], elsewhere.env);
  expect(ran).toMatchObject({ code: 2, stderr: expect.stringMatching(/the last, is cut off/) });
  writeFileSync(join(to.dataDir, 'countersign.db-wal'), 'of before');
  expect(await refused([file])).toMatch(/move all of it away first.*db-wal/);
  rmSync(join(to.dataDir, 'countersign.db-wal'));
  expect(await refused([file, '--events', write('garbage', ['{"seq":1}'])])).toMatch(/Line 1 .* is no event/);
  const damaged = join(folder, 'damaged.db');
  copyFileSync(file, damaged);
  const bytes = readFileSync(damaged);
  const at = bytes.indexOf('"kept"') === -1 ? bytes.indexOf('kept') : bytes.indexOf('"kept"');
  bytes.write('KEPT', at);
  writeFileSync(damaged, bytes);
  expect(await refused([damaged])).toMatch(/damaged/);
  expect(await refused([log])).toMatch(/is no backup/);
});
