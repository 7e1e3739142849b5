import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, it } from 'vitest';
import { schemaVersion } from '../../db/migrations.ts';
import { describeOnEachDialect, type WhenDone, whenSuiteDone } from '../support/deps.ts';
import { expectChained } from '../support/event-log.ts';
import { type Answer, launchServer, type RunningServer, send } from '../support/server.ts';
import { filesOf, inspect, newSite, type Site, startAt } from '../support/site.ts';

const SERVERS = 3;
/** Callers that want the same thing at the same moment, over all servers. */
const RIVALS = 12;

const startAll = (site: Site, whenDone?: WhenDone) =>
  Promise.all(site.settings.map((_, i) => startAt(site, i, whenDone && { whenDone })));

/** What setting up leaves exactly once, however many did it and however often it was cut off. */
async function expectSetUpOnce(site: Site): Promise<void> {
  await inspect(site, async ({ store, keyring }) => {
    const { db, tables } = store.read;
    expect(await db.select().from(tables.installation)).toHaveLength(1);
    expect(await db.select().from(tables.secretKeys)).toHaveLength(1);
    expect(await db.select().from(tables.secrets)).toHaveLength(1);
    expect(await db.select().from(tables.signingKeys)).toMatchObject([{ state: 'active' }]);
    expect(await expectChained({ store, keyring })).toBe(1);
  });
}

/** What each of several calls came to: `ok`, or the code of its error; in alphabetical order. */
const outcomesOf = (answers: readonly Answer[]): string[] =>
  answers.map(({ body }) => body.error?.data.code ?? 'ok').sort();

const oneOf = (rivals: number, refusal: string) => ['ok', ...Array<string>(rivals - 1).fill(refusal)].sort();

/** What a call answered; throws where it was refused. */
async function done(calling: Promise<Answer>) {
  const { body } = await calling;
  if (body.error) throw new Error(`The call was refused: ${body.error.message}`);
  return body.result.data;
}

describeOnEachDialect('three servers on one database', (dialect) => {
  const whenDone = whenSuiteDone();
  let site: Site;
  let servers: RunningServer[];
  let adminKey: string;

  beforeAll(async () => {
    site = await newSite(dialect, SERVERS, {}, whenDone);
    servers = await startAll(site, whenDone);
    adminKey = servers.map((server) => server.adminKey).find((key) => key !== '') ?? '';
  });

  const server = (i: number) => servers[i % SERVERS] as RunningServer;
  const call = (i: number, path: string, input: unknown, credential = adminKey) =>
    server(i).call(path, input, credential);
  /** The same call from as many callers as there are rivals, spread over the servers. */
  const race = (path: string, input: unknown, credential?: string) =>
    Promise.all(Array.from({ length: RIVALS }, (_, i) => call(i, path, input, credential)));
  const verify = (i: number, input: Record<string, unknown>) => done(call(i, 'credentials.verify', input));
  const machine = (name: string) => done(call(0, 'machines.create', { name }));
  const events = async (objectId: string): Promise<string[]> =>
    (await logOf(server(1), adminKey)).flatMap((event) => (event.objectId === objectId ? [event.type] : []));

  it('set it up once when started at once while it was empty, and one of them keeps and tells the first key', async () => {
    expect(filesOf(site, 'first-secret-key')).toHaveLength(1);
    expect(readFileSync(filesOf(site, 'first-secret-key')[0] ?? '', 'utf8').trim()).toBe(adminKey);
    const told = servers.filter(({ stdout }) => stdout().includes('Lose this master key'));
    expect(told).toHaveLength(1);
    for (const { stdout, stderr } of servers) expect(stdout() + stderr()).not.toContain(adminKey);
    await expectSetUpOnce(site);
    for (const { url } of servers) expect((await send(`${url}/readyz`)).status).toBe(200);
  });

  it('know what another made the moment that it was answered, and sign for one another', async () => {
    const [from, to] = await Promise.all([machine('signs'), machine('is called')]);
    await done(call(1, 'machineScopes.create', { fromMachineId: from.id, toMachineId: to.id, scopes: [] }));
    for (const format of ['opaque', 'jwt']) {
      for (const i of servers.keys()) {
        const { id, token } = await done(call(i, 'm2mTokens.create', { format }, from.secret));
        const audience = to.id;
        for (const j of servers.keys())
          expect(await verify(j, { credential: token, audience })).toMatchObject({ valid: true, id });
      }
    }
  });

  it('leave one log of what is written at all of them, which grows in the order of commits and without a gap', async () => {
    let isOver = false;
    const writing = Promise.all(Array.from({ length: RIVALS }, (_, i) => writeMachines(i))).finally(() => {
      isOver = true;
    });
    const reading = Promise.all(servers.map((each) => follow(each, adminKey, () => isOver)));
    const [ids, logs] = await Promise.all([writing, reading]);
    const written = ids.flat();
    for (const log of logs) {
      const created = log.filter(({ type }) => type === 'machine.created').map(({ objectId }) => objectId);
      expect(created).toEqual(expect.arrayContaining(written));
      expect(new Set(created).size).toBe(created.length);
      expect(log).toEqual(logs[0]);
    }
    const count = await inspect(site, expectChained);
    expect(logs[0]).toHaveLength(count);
  });

  /** Creates machines at one server, and looks for each at the next. */
  async function writeMachines(writer: number): Promise<string[]> {
    const ids: string[] = [];
    for (let i = 0; i < 12; i++) {
      const { id } = await done(call(writer, 'machines.create', { name: `machine ${writer}-${i}` }));
      expect((await done(call(writer + 1, 'machines.get', { id }))).id).toBe(id);
      ids.push(id);
    }
    return ids;
  }

  it.each([
    ['machines.create', { name: 'wanted by many' }],
    ['apiKeys.create', { name: 'wanted by many', subject: 'user_1' }],
  ])('give a unique name to exactly one of many: %s', async (path, input) => {
    expect(outcomesOf(await race(path, input))).toEqual(oneOf(RIVALS, 'name_taken'));
  });

  it('allow one machine to call another exactly once', async () => {
    const [from, to] = await Promise.all([machine('caller'), machine('called')]);
    const input = { fromMachineId: from.id, toMachineId: to.id, scopes: [] };
    expect(outcomesOf(await race('machineScopes.create', input))).toEqual(oneOf(RIVALS, 'already_exists'));
  });

  it('begin exactly one of many rotations, and end its overlap in exactly one way', async () => {
    const nouns = {
      machines: [await machine('rotated'), 'machines.rotateSecret'],
      apiKeys: [
        await done(call(0, 'apiKeys.create', { name: 'rotated', subject: 'user_1' })),
        'apiKeys.rotate',
      ],
      secretKeys: [
        await done(call(0, 'secretKeys.create', { name: 'rotated', role: 'read' })),
        'secretKeys.rotate',
      ],
    };
    for (const [noun, [{ id }, rotate]] of Object.entries(nouns)) {
      const rotations = await race(rotate, { id, overlapSeconds: 60 });
      expect(outcomesOf(rotations)).toEqual(oneOf(RIVALS, 'rotation_in_progress'));
      const ends = ['cancelRotation', 'completeRotation'].map((end) => race(`${noun}.${end}`, { id }));
      const outcomes = outcomesOf((await Promise.all(ends)).flat());
      expect(outcomes).toEqual(oneOf(2 * RIVALS, 'no_rotation_in_progress'));
    }
  });

  it('let a machine rotate its own secret exactly once with the same secret', async () => {
    const { id, secret } = await machine('rotates itself');
    const outcomes = outcomesOf(await race('machines.rotateOwnSecret', { overlapSeconds: 60 }, secret));
    expect(outcomes).toEqual(oneOf(RIVALS, 'forbidden'));
    expect(await events(id)).toEqual(['machine.created', 'machine.secret_rotated']);
  });

  it('answer everybody who revokes the same thing, and log it once', async () => {
    const key = await done(call(0, 'apiKeys.create', { name: 'revoked', subject: 'user_1' }));
    expect(new Set(outcomesOf(await race('apiKeys.revoke', { id: key.id })))).toEqual(new Set(['ok']));
    expect(await events(key.id)).toEqual(['api_key.created', 'api_key.revoked']);
    for (const i of servers.keys())
      expect(await verify(i, { credential: key.secret })).toMatchObject({ valid: false, reason: 'revoked' });
    expect(outcomesOf(await race('apiKeys.delete', { id: key.id }))).toEqual(oneOf(RIVALS, 'not_found'));
  });

  it('leave no key of a subject alive that the log has before the revocation of all', async () => {
    const subject = 'user_left';
    const created: { secret: string; id: string }[] = [];
    async function createKeys(caller: number) {
      for (let i = 0; i < 8; i++)
        created.push(await done(call(caller, 'apiKeys.create', { name: `${caller}-${i}`, subject })));
    }
    const creating = [0, 1, 2, 3, 4, 5].map(createKeys);
    while (created.length < 5) await sleep(1);
    await done(call(1, 'apiKeys.revokeAll', { subject }));
    await Promise.all(creating);
    const log = (await logOf(server(2), adminKey)).filter((event) => event.subject === subject);
    const revokedAt = log.findIndex(({ type }) => type === 'subject.api_keys_revoked');
    const before = new Set(log.slice(0, revokedAt).map(({ objectId }) => objectId));
    expect(before.size).toBeGreaterThanOrEqual(5);
    for (const { id, secret } of created)
      expect(await verify(0, { credential: secret })).toMatchObject({ valid: !before.has(id) });
  });

  it('have one successor sign when the signing key is retired in an emergency at all of them', async () => {
    const keys = await done(call(0, 'signingKeys.list', {}));
    const { kid } = keys.find((key: { state: string }) => key.state === 'active');
    expect(new Set(outcomesOf(await race('signingKeys.emergencyRetire', { kid })))).toEqual(new Set(['ok']));
    expect(await events(kid)).toEqual(['signing_key.emergency_retired']);
    const states = (await done(call(1, 'signingKeys.list', {}))).map((key: { state: string }) => key.state);
    expect(states.sort()).toEqual(['active', 'retired']);
  });

  it('leave one admin key when each revokes itself', async () => {
    const values = [adminKey];
    for (let i = 1; i < 6; i++)
      values.push((await done(call(i, 'secretKeys.create', { name: `admin ${i}`, role: 'admin' }))).secret);
    const ids: string[] = (await done(call(0, 'secretKeys.list', {}))).data
      .filter(({ role }: { role: string }) => role === 'admin')
      .map(({ id }: { id: string }) => id)
      .reverse();
    const revoke = (value: string, i: number) => call(i, 'secretKeys.revoke', { id: ids[i] }, value);
    const answers = await Promise.all(values.map(revoke));
    expect(outcomesOf(answers)).toEqual(['last_admin_key', 'ok', 'ok', 'ok', 'ok', 'ok']);
    adminKey = values[answers.findIndex(({ body }) => body.error)] ?? '';
    const left = (await done(call(2, 'secretKeys.list', {}))).data;
    expect(
      left.filter((key: { role: string; state: string }) => key.role === 'admin' && key.state === 'live'),
    ).toHaveLength(1);
  });

  it('have left one log, whatever was refused: without a gap, each event chained to the one before', async () => {
    const log = await logOf(server(0), adminKey);
    expect(await inspect(site, expectChained)).toBe(log.length);
  });

  it('go on beside a binary that is too old for the database, which says so and changes nothing', async () => {
    const oldest = schemaVersion() + 1;
    await inspect(site, ({ store }) =>
      store.tx(({ db, tables }) => db.update(tables.installation).set({ oldest_binary: oldest })),
    );
    const before = await logOf(server(0), adminKey);
    const launched = await launchServer({ ...site.settings[0], PORT: '0' });
    expect(await launched.exit).toBe(1);
    expect(launched.stdout() + launched.stderr()).toBe(
      `Cannot start: This database bears binaries of schema version ${oldest} and newer; this one is ${oldest - 1}. Nothing was changed. Start a newer version\n`,
    );
    expect(await logOf(server(0), adminKey)).toEqual(before);
  });
});

interface LoggedEvent {
  seq: number;
  at: number;
  type: string;
  objectId: string;
  subject: string | null;
}

/** The whole log as one server tells it. */
const logOf = (server: RunningServer, adminKey: string) => follow(server, adminKey, () => true);

/**
 * Reads the log after the last event seen, again and again, until nothing more is to come. Whatever appears must follow
 * what was seen without a gap: a sequence that appeared after a later one would never be read by anybody.
 */
async function follow(
  server: RunningServer,
  adminKey: string,
  isOver: () => boolean,
): Promise<LoggedEvent[]> {
  const seen: LoggedEvent[] = [];
  for (;;) {
    const isLast = isOver();
    const after = seen.length;
    const { data } = await done(server.call('events.list', { after, limit: 500 }, adminKey));
    for (const event of data as LoggedEvent[]) {
      expect(event.seq).toBe(seen.length + 1);
      expect(event.at).toBeGreaterThanOrEqual(seen.at(-1)?.at ?? 0);
      seen.push(event);
    }
    if (isLast && data.length === 0) return seen;
  }
}

describeOnEachDialect('three servers started at once with a key that the operator chose', (dialect) => {
  it('install it once, all know it, and none writes it anywhere', async () => {
    const chosen = `sk_${'chosen_'.repeat(8)}`;
    const site = await newSite(dialect, SERVERS, { COUNTERSIGN_BOOTSTRAP_KEY: chosen });
    const servers = await startAll(site);
    for (const server of servers) {
      const { data } = await done(server.call('secretKeys.list', {}));
      expect(data).toMatchObject([{ role: 'admin', state: 'live' }]);
      expect(server.stdout() + server.stderr()).not.toContain(chosen);
    }
    expect(filesOf(site, 'first-secret-key')).toEqual([]);
    await expectSetUpOnce(site);
  });
});

/** How far a first start has come when it is killed, within a moment: migrations, keys in files, rows are yet to come. */
const MOMENTS: [reached: string, file: string, msMax: number][] = [
  ['its data directory', '.', 20],
  ['its data directory', '.', 300],
  ['the file of the first key', 'first-secret-key', 20],
  ['the file of the first key', 'first-secret-key', 200],
];

describeOnEachDialect('a first start that is killed with SIGKILL', (dialect) => {
  it.each(MOMENTS)(
    'once there is %s (%s), at most %i ms later: the next completes it',
    async (_what, file, msMax) => {
      const site = await newSite(dialect, 2);
      const killed = await launchServer(site.settings[0] ?? {});
      while (filesOf(site, file).length === 0) await sleep(1);
      const afterMs = Math.random() * msMax;
      await sleep(afterMs);
      killed.process.kill('SIGKILL');
      await killed.exit;

      const server = await startAt(site, 1);
      // On PostgreSQL it is another host's folder that has the key, where that came far enough.
      const keys = filesOf(site, 'first-secret-key').map((path) => readFileSync(path, 'utf8').trim());
      const answers = await Promise.all(keys.map((key) => server.call('secretKeys.list', {}, key)));
      expect(
        answers.filter(({ status }) => status === 200),
        `killed ${afterMs} ms later`,
      ).toHaveLength(1);
      await expectSetUpOnce(site);
    },
  );
});
