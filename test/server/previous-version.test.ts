import { beforeAll, describe, expect, it, vi } from 'vitest';
import { rowMac } from '../../server/crypto/hashing.ts';
import { type Dialect, describeOnEachDialect, whenSuiteDone } from '../support/deps.ts';
import { expectChained } from '../support/event-log.ts';
import { buildPreviousVersion, findPreviousVersion } from '../support/previous-version.ts';
import type { Answer, RunningServer } from '../support/server.ts';
import { inspect, newSite, type Site, startAt } from '../support/site.ts';

const previous = findPreviousVersion();
const ADMIN_KEY = `sk_${'chosen_'.repeat(8)}`;

/** What a call answered; throws where it was refused. */
async function done(calling: Promise<Answer>) {
  const { body } = await calling;
  if (body.error) throw new Error(`The call was refused: ${body.error.message}`);
  return body.result.data;
}

let made = 0;

/** One of everything that verifies or calls, made through one server. */
async function makeAll(by: RunningServer) {
  const name = `made ${++made}`;
  const [machine, to] = [await done(by.call('machines.create', { name })), await receiver(by, name)];
  await done(
    by.call('machineScopes.create', { fromMachineId: machine.id, toMachineId: to, scopes: ['read'] }),
  );
  const mint = (format: string) => done(by.call('m2mTokens.create', { format }, machine.secret));
  return {
    machine,
    to,
    secretKey: await done(by.call('secretKeys.create', { name, role: 'read' })),
    apiKey: await done(by.call('apiKeys.create', { name, subject: `user_${made}`, scopes: ['read'] })),
    opaque: await mint('opaque'),
    jwt: await mint('jwt'),
  };
}

const receiver = async (by: RunningServer, name: string): Promise<string> =>
  (await done(by.call('machines.create', { name: `called by ${name}` }))).id;

type Made = Awaited<ReturnType<typeof makeAll>>;

/** What of it one server accepts. */
async function acceptedBy(server: RunningServer, { to, machine, secretKey, apiKey, opaque, jwt }: Made) {
  const verifies = async (credential: string, audience?: string): Promise<boolean> =>
    (await done(server.call('credentials.verify', { credential, audience, scopes: ['read'] }))).valid;
  const mayCall = async (path: string, secret: string) =>
    (await server.call(path, {}, secret)).status === 200;
  return {
    apiKey: await verifies(apiKey.secret),
    opaque: await verifies(opaque.token, to),
    jwt: await verifies(jwt.token, to),
    secretKey: await mayCall('machines.list', secretKey.secret),
    machine: await mayCall('m2mTokens.create', machine.secret),
  };
}

const ALL = { apiKey: true, opaque: true, jwt: true, secretKey: true, machine: true };

/** Each way to take something back, and what is refused from then on. */
const WAYS: [path: string, input: (made: Made) => object, refused: Partial<typeof ALL>][] = [
  ['apiKeys.revoke', ({ apiKey: { id } }) => ({ id }), { apiKey: false }],
  ['apiKeys.disable', ({ apiKey: { id } }) => ({ id }), { apiKey: false }],
  ['apiKeys.delete', ({ apiKey: { id } }) => ({ id }), { apiKey: false }],
  ['apiKeys.revokeAll', ({ apiKey: { subject } }) => ({ subject }), { apiKey: false }],
  ['apiKeys.update', ({ apiKey: { id } }) => ({ id, scopes: [] }), { apiKey: false }],
  ['apiKeys.rotate', ({ apiKey: { id } }) => ({ id, compromised: true }), { apiKey: false }],
  ['secretKeys.revoke', ({ secretKey: { id } }) => ({ id }), { secretKey: false }],
  ['secretKeys.rotate', ({ secretKey: { id } }) => ({ id, compromised: true }), { secretKey: false }],
  ['m2mTokens.revoke', ({ opaque: { id } }) => ({ id }), { opaque: false }],
  ['m2mTokens.revoke', ({ jwt: { id } }) => ({ id }), { jwt: false }],
  ['m2mTokens.revokeAll', ({ machine: { id } }) => ({ machineId: id }), { opaque: false, jwt: false }],
  [
    'machineScopes.delete',
    ({ machine, to }) => ({ fromMachineId: machine.id, toMachineId: to }),
    { opaque: false, jwt: false },
  ],
  ['machines.disable', ({ machine: { id } }) => ({ id }), { opaque: false, jwt: false, machine: false }],
  ['machines.delete', ({ machine: { id } }) => ({ id }), { opaque: false, jwt: false, machine: false }],
  [
    'machines.rotateSecret',
    ({ machine: { id } }) => ({ id, compromised: true }),
    { opaque: false, jwt: false, machine: false },
  ],
];

function suite(dialect: Dialect) {
  const whenDone = whenSuiteDone();
  let root: string;
  let site: Site;
  let before: RunningServer;
  let now: RunningServer;
  let madeBefore: Made;

  beforeAll(async () => {
    root = buildPreviousVersion(previous.commit ?? '');
    site = await newSite(dialect, 2, { COUNTERSIGN_BOOTSTRAP_KEY: ADMIN_KEY }, whenDone);
    before = await startAt(site, 0, { root, whenDone });
    madeBefore = await makeAll(before);
    // It migrates a database that the other is at work on.
    now = await startAt(site, 1, { whenDone });
  }, 120_000);

  const both = () => [before, now];

  it('each accepts what the other made, and what was there before the migration', async () => {
    for (const made of [madeBefore, await makeAll(before), await makeAll(now)])
      for (const server of both()) expect(await acceptedBy(server, made)).toEqual(ALL);
  });

  it.each(WAYS)('%s through either is true for both at once', async (path, input, refused) => {
    for (const [maker, revoker] of [both(), both().reverse()] as [RunningServer, RunningServer][]) {
      const made = await makeAll(maker);
      await done(revoker.call(path, input(made)));
      for (const server of both()) expect(await acceptedBy(server, made)).toEqual({ ...ALL, ...refused });
    }
  });

  it.each(['apiKey', 'secretKey'] as const)(
    'a rotation that one began (%s) is known to the other, who completes it',
    async (noun) => {
      for (const [beginner, other] of [both(), both().reverse()] as [RunningServer, RunningServer][]) {
        const made = await makeAll(other);
        const { id } = made[noun];
        const { secret } = await done(beginner.call(`${noun}s.rotate`, { id, overlapSeconds: 3600 }));
        const rotated = { ...made, [noun]: { ...made[noun], secret } };
        for (const server of both())
          for (const each of [made, rotated]) expect(await acceptedBy(server, each)).toEqual(ALL);
        await done(other.call(`${noun}s.completeRotation`, { id }));
        for (const server of both()) {
          expect(await acceptedBy(server, made)).toEqual({ ...ALL, [noun]: false });
          expect(await acceptedBy(server, rotated)).toEqual(ALL);
        }
      }
    },
  );

  it('a secret key without CIDR blocks carries the same HMAC as before, and with them is nobody to whom cannot judge them', async () => {
    const { id } = await done(now.call('secretKeys.create', { name: 'anywhere', role: 'admin' }));
    await inspect(
      site,
      async ({
        store: {
          read: { db, tables },
        },
        keyring,
      }) => {
        const rows = await db.select().from(tables.secretKeys);
        const row = rows.find((each) => each.id === id);
        expect(row?.mac).toEqual(rowMac(keyring.rowMac, ['secret_keys', id, 'admin', null, null]));
      },
    );
    const input = { name: 'elsewhere', role: 'read', allowedCidrs: ['203.0.113.0/24'] };
    const { secret } = await done(now.call('secretKeys.create', input));
    expect((await before.call('machines.list', {}, secret)).status).toBe(401);
  });

  it('an emergency of the signing key at either ends its tokens at both, and both sign with the next', async () => {
    for (const [maker, retirer] of [both(), both().reverse()] as [RunningServer, RunningServer][]) {
      const made = await makeAll(maker);
      const keys: { kid: string; state: string }[] = await done(maker.call('signingKeys.list', {}));
      const { kid } = keys.find(({ state }) => state === 'active') ?? {};
      await done(retirer.call('signingKeys.emergencyRetire', { kid }));
      for (const server of both()) {
        expect(await acceptedBy(server, made)).toEqual({ ...ALL, jwt: false });
        const jwt = await done(server.call('m2mTokens.create', { format: 'jwt' }, made.machine.secret));
        // Who has read the keys a moment ago looks for an unknown one half a second later, in the version before.
        for (const each of both())
          await vi.waitFor(async () => expect(await acceptedBy(each, { ...made, jwt })).toEqual(ALL));
      }
    }
  });

  it('the version before starts again on the migrated database, and goes on', async () => {
    expect(await before.stop()).toBe(0);
    before = await startAt(site, 0, { root, whenDone });
    for (const made of [madeBefore, await makeAll(before)])
      for (const server of both())
        expect(await acceptedBy(server, made)).toMatchObject({
          apiKey: true,
          opaque: true,
          secretKey: true,
          machine: true,
        });
  });

  it('what both wrote at the same time is one log without a gap, each event chained to the one before', async () => {
    await Promise.all([0, 1, 2, 3].flatMap(() => both().map((server) => makeAll(server))));
    expect(await inspect(site, expectChained)).toBeGreaterThan(100);
    for (const server of both()) {
      const { data } = await done(server.call('events.list', { limit: 500 }));
      expect(data.map(({ seq }: { seq: number }) => seq)).toEqual(data.map((_: unknown, i: number) => i + 1));
    }
  });
}

if (previous.commit === null)
  describe.skip(`the version before beside this one [skipped: ${previous.missing}]`, () => suite('sqlite'));
else describeOnEachDialect('the version before beside this one', suite);
