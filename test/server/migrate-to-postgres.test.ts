import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { describe, expect, inject, it } from 'vitest';
import { openStore } from '../../db/store.ts';
import { freshDatabase, freshFolder } from '../support/deps.ts';
import { epochOf } from '../support/feed.ts';
import { type RunningServer, runProgram, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const BOOTSTRAP = `sk_${'b'.repeat(48)}`;

async function create(server: RunningServer, path: string, input: object, credential = BOOTSTRAP) {
  const { status, body } = await server.call(path, input, credential);
  expect([path, status, body.error?.message]).toEqual([path, 200, undefined]);
  return body.result.data;
}

/** A data directory whose server listens where its JWTs say, before and after. */
async function place() {
  const dataDir = freshFolder();
  const env = { COUNTERSIGN_DATA_DIR: dataDir, PORT: String(await freePort()) };
  const masterKeyFile = join(dataDir, 'master-key');
  const databaseUrl = await freshDatabase('postgres');
  return {
    dataDir,
    env,
    moved: { ...env, DATABASE_URL: databaseUrl, COUNTERSIGN_MASTER_KEY_FILE: masterKeyFile },
    sqliteFile: join(dataDir, 'countersign.db'),
    databaseUrl,
  };
}

type Place = Awaited<ReturnType<typeof place>>;

const start = ({ dataDir }: Place, env: NodeJS.ProcessEnv) =>
  startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn', COUNTERSIGN_BOOTSTRAP_KEY: BOOTSTRAP });

/** One credential at least of each kind and state, with what a verification of it is asked beside. */
async function everyKind(server: RunningServer) {
  const sender = await create(server, 'machines.create', { name: 'sender' });
  const receiver = await create(server, 'machines.create', { name: 'receiver' });
  await create(server, 'machineScopes.create', {
    fromMachineId: sender.id,
    toMachineId: receiver.id,
    scopes: ['entries:write'],
  });
  const mint = (input: object) => create(server, 'm2mTokens.create', input, sender.secret);
  const tokens = {
    opaque: await mint({ claims: { Tour: 7, ünïcode: '\u{1f511}' } }),
    jwt: await mint({ format: 'jwt' }),
    'revoked opaque': await mint({}),
    'revoked jwt': await mint({ format: 'jwt' }),
  };
  for (const name of ['revoked opaque', 'revoked jwt'] as const)
    await create(server, 'm2mTokens.revoke', { id: tokens[name].id });

  await create(server, 'keyPrefixes.create', { prefix: 'acme_live_' });
  const policy = await create(server, 'keyPolicies.create', {
    name: 'trial',
    allowedScopes: ['invoices:read'],
    rateLimit: { count: 2, windowSeconds: 3600 },
  });
  const prefixed = await create(server, 'keyPolicies.create', { name: 'acme', prefix: 'acme_live_' });
  const newKey = (name: string, input: object = {}) =>
    create(server, 'apiKeys.create', { name, subject: 'user_1', scopes: ['invoices:read'], ...input });
  const keys = {
    plain: await newKey('plain', { claims: { plan: 'gold' } }),
    'of a policy': await newKey('of a policy', { policyId: policy.id }),
    prefixed: await newKey('prefixed', { policyId: prefixed.id }),
    elsewhere: await newKey('elsewhere', { allowedCidrs: ['192.0.2.0/24'] }),
    'with credits': await newKey('with credits'),
    rotated: await newKey('rotated'),
    disabled: await newKey('disabled'),
    revoked: await newKey('revoked'),
    'of a disabled subject': await newKey('of a disabled subject', { subject: 'user_2' }),
  };
  await create(server, 'apiKeys.setCredits', { id: keys['with credits'].id, remaining: 1 });
  await create(server, 'apiKeys.disable', { id: keys.disabled.id });
  await create(server, 'apiKeys.revoke', { id: keys.revoked.id });
  await create(server, 'subjects.disable', { id: 'user_2' });
  const rotated = await create(server, 'apiKeys.rotate', { id: keys.rotated.id, overlapSeconds: 3600 });
  const imported = 'legacy-key-of-a-customer-0123456789abcdef';
  await create(server, 'apiKeys.import', {
    shapes: [{ prefix: 'legacy-key-', length: imported.length }],
    items: [
      {
        name: 'imported',
        subject: 'user_3',
        hash: createHash('sha256').update(imported).digest('base64url'),
      },
    ],
  });
  return {
    ...Object.fromEntries(
      Object.entries(tokens).map(([name, { token }]) => [name, { credential: token, audience: receiver.id }]),
    ),
    ...Object.fromEntries(
      Object.entries(keys).map(([name, { secret }]) => [name, { credential: secret as string }]),
    ),
    'rotated to': { credential: rotated.secret as string },
    imported: { credential: imported },
    'another scope': { credential: keys.plain.secret, scopes: ['invoices:write'] },
    'another audience': { credential: tokens.opaque.token, audience: sender.id },
    'never made': { credential: `ak_${'x'.repeat(49)}` },
    'no credits now': { credential: keys['with credits'].secret, cost: 2 },
  };
}

type Asked = Awaited<ReturnType<typeof everyKind>>;

/** What a server says of each, in the same order; what a verification itself uses up is not asked. */
async function answersOf(server: RunningServer, asked: Asked) {
  const answers: Record<string, unknown> = {};
  for (const [name, question] of Object.entries(asked))
    answers[name] = await create(server, 'credentials.verify', { cost: 0, ...question });
  return answers;
}

async function judgedAtIn(location: string) {
  const store = await openStore({ location });
  const { db, tables } = store.read;
  const [row] = await db.select().from(tables.installation).finally(store.close);
  return row?.judged_at;
}

const { url, missing } = inject('postgres');
describe.skipIf(url === null)(`migrating to PostgreSQL${url ? '' : ` [skipped: ${missing}]`}`, () => {
  it('every credential is answered as before, and the file is not opened again', {
    timeout: 120_000,
  }, async () => {
    const at = await place();
    const before = await start(at, at.env);
    const asked = await everyKind(before);
    const answers = await answersOf(before, asked);
    expect(new Set(Object.values(answers).map((answer) => (answer as { valid: boolean }).valid)).size).toBe(
      2,
    );
    const epoch = await epochOf(before.url, BOOTSTRAP);
    const inUse = await runProgram('migrate-to-postgres', [], at.moved);
    expect(inUse).toMatchObject({ code: 1, stderr: expect.stringContaining('is in use: stop the servers') });
    await before.stop();
    const judgedAt = await judgedAtIn(at.sqliteFile);
    expect(judgedAt).toBeGreaterThan(0);

    const ran = await runProgram('migrate-to-postgres', [], at.moved);
    expect([ran.code, ran.stderr]).toEqual([0, '']);
    expect(ran.stdout).toMatch(/^ {2}apiKeys: 10$/m);
    expect(ran.stdout).toMatch(/counts and checksums of all \d+ tables are the same/);
    expect(await judgedAtIn(at.databaseUrl)).toBe(judgedAt);

    const after = await start(at, at.moved);
    expect(await answersOf(after, asked)).toEqual(answers);
    expect(await epochOf(after.url, BOOTSTRAP)).toBe(epoch);
    await create(after, 'jobs.run', { name: 'audit-checkpoint' });
    await after.stop();
    expect(await runProgram('audit-verify', [], at.moved)).toMatchObject({ code: 0 });

    const refused = await runProgram('main', [], at.env);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('moved to PostgreSQL') });
    const again = await runProgram('migrate-to-postgres', [], at.moved);
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('moved to PostgreSQL') });
  });

  it('cut off after PostgreSQL has it all, goes on from there', { timeout: 60_000 }, async () => {
    const at = await place();
    await (await start(at, at.env)).stop();
    const unmarked = readFileSync(at.sqliteFile);
    expect(await runProgram('migrate-to-postgres', [], at.moved)).toMatchObject({ code: 0 });
    writeFileSync(at.sqliteFile, unmarked);
    const again = await runProgram('migrate-to-postgres', [], at.moved);
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining('already: an earlier run') });
    expect((await runProgram('main', [], at.env)).stderr).toContain('moved to PostgreSQL');
  });

  it('what differs is not kept, and the file serves on', { timeout: 60_000 }, async () => {
    const at = await place();
    const server = await start(at, at.env);
    await create(server, 'machines.create', { name: 'one' });
    await server.stop();
    const store = await openStore({ location: at.databaseUrl });
    await store.exclusively(() => store.migrate());
    await store.close();
    const client = new pg.Client({ connectionString: at.databaseUrl });
    await client.connect();
    await client.query(
      `CREATE FUNCTION later() RETURNS trigger AS 'BEGIN NEW.created_at := NEW.created_at + 1; RETURN NEW; END' LANGUAGE plpgsql;
       CREATE TRIGGER later BEFORE INSERT ON machines FOR EACH ROW EXECUTE FUNCTION later()`,
    );
    const ran = await runProgram('migrate-to-postgres', [], at.moved);
    expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('machines differ') });
    expect((await client.query('SELECT count(*)::int FROM installation')).rows).toEqual([{ count: 0 }]);
    await client.end();
    await (await start(at, at.env)).stop();
  });

  it('an installation that is there is not written over, and nothing is made of bad settings', {
    timeout: 60_000,
  }, async () => {
    const at = await place();
    await (await start(at, at.env)).stop();
    const other = await place();
    await (
      await start(other, {
        ...other.moved,
        COUNTERSIGN_MASTER_KEY_FILE: at.moved.COUNTERSIGN_MASTER_KEY_FILE,
      })
    ).stop();
    const intoOther = { ...at.moved, DATABASE_URL: other.databaseUrl };
    const refused = async (env: NodeJS.ProcessEnv, args: string[] = []) => {
      const { code, stderr } = await runProgram('migrate-to-postgres', args, env);
      expect(code).toBe(1);
      return stderr;
    };
    expect(await refused(intoOther)).toMatch(/is in use: give an empty one/);
    expect(await refused(at.env)).toMatch(/DATABASE_URL/);
    expect(await refused({ ...at.moved, COUNTERSIGN_DATA_DIR: freshFolder() })).toMatch(
      /COUNTERSIGN_DATA_DIR/,
    );
    expect(await refused(at.moved, ['--force'])).toMatch(/arguments/);
    const { COUNTERSIGN_MASTER_KEY_FILE: _, ...keyless } = at.moved;
    const otherKey = { ...keyless, COUNTERSIGN_MASTER_KEY: Buffer.alloc(32, 9).toString('base64') };
    expect(await refused(otherKey)).toMatch(/master key is not the one/);
    expect(existsSync(at.sqliteFile)).toBe(true);
    await (await start(at, at.env)).stop();
  });
});
