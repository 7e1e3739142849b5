import { eq, sql } from 'drizzle-orm';
import { decodeProtectedHeader } from 'jose';
import { expect, it } from 'vitest';
import type { Rows } from '../../../db/store.ts';
import { authorize } from '../../../server/authenticate.ts';
import {
  generateSigningKey,
  SIGNING_ALGS,
  type SigningAlg,
  signM2mJwt,
  verifyM2mJwt,
} from '../../../server/crypto/jwt.ts';
import type { Deps } from '../../../server/deps.ts';
import { type Authorize, verify, verifyInput } from '../../../server/domain/credentials.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import {
  activateSigningKey,
  createSigner,
  createSigningKey,
  emergencyRetireSigningKey,
  insertSigningKey,
  isStillActive,
  listSigningKeys,
  retireSigningKey,
} from '../../../server/domain/signing-keys.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';
import { allow, newMachine } from '../../support/machines.ts';

const ISSUER = 'https://auth.example';

async function addKey(deps: TestDeps, kid: string, state: 'upcoming' | 'active', alg: SigningAlg = 'ES256') {
  const pair = await generateSigningKey(alg);
  await deps.store.tx((tx) => insertSigningKey(tx, deps.keyring, pair, { kid, alg, state, now: deps.now() }));
}

/** A signer whose monotonic clock is moved by hand. */
function signerAt(deps: TestDeps) {
  const clock = { ms: 0 };
  return { clock, signer: createSigner(deps.store, deps.keyring, () => clock.ms) };
}

/** A database that answers no query. */
const DOWN = {
  select: () => {
    throw new Error('down');
  },
} as unknown as Rows['db'];

describeOnEachDialect('signing keys', (dialect) => {
  it('a key signs when it is active, and is published and verifies before that', async () => {
    const deps = await openTestDeps(dialect);
    await addKey(deps, 'key_next', 'upcoming');
    const { signer } = signerAt(deps);
    const active = await signer.active();
    expect(active.kid).not.toBe('key_next');
    expect((await signer.jwks()).keys.map((key) => key['kid']).sort()).toEqual(
      [active.kid, 'key_next'].sort(),
    );
    expect(await signer.find('key_next')).toMatchObject({ alg: 'ES256' });
    expect(await signer.find('other')).toBeNull();
  });

  it('the JWKS holds public members only', async () => {
    const deps = await openTestDeps(dialect);
    for (const key of (await deps.signer.jwks()).keys) {
      expect(Object.keys(key).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
    }
  });

  it('a key that another process has just made is found by all who ask at once, however young the set is', async () => {
    const deps = await openTestDeps(dialect);
    const { signer } = signerAt(deps);
    await signer.active();
    await addKey(deps, 'key_new', 'upcoming');
    const found = await Promise.all(Array.from({ length: 5 }, () => signer.find('key_new')));
    expect(found.map((key) => key?.kid)).toEqual(Array(5).fill('key_new'));
  });

  it('unknown kids have the set read again, but not more than twice a second', async () => {
    const deps = await openTestDeps(dialect);
    const { signer, clock } = signerAt(deps);
    expect(await signer.find('key_made_up')).toBeNull();
    await addKey(deps, 'key_new', 'upcoming');
    clock.ms = 499;
    expect(await signer.find('key_new')).toBeNull();
    clock.ms = 500;
    expect(await signer.find('key_new')).not.toBeNull();
  });

  it('a failure to read the set for an unknown kid is not kept', async () => {
    const deps = await openTestDeps(dialect);
    let isDown = false;
    const store = {
      ...deps.store,
      get read() {
        return isDown ? { ...deps.store.read, db: DOWN } : deps.store.read;
      },
    };
    const signer = createSigner(store, deps.keyring, () => 0);
    await signer.active();
    isDown = true;
    await expect(signer.find('key_new')).rejects.toThrow('down');
    isDown = false;
    await addKey(deps, 'key_new', 'upcoming');
    expect(await signer.find('key_new')).not.toBeNull();
  });

  it('a key whose row was written by somebody else is not used', async () => {
    const deps = await openTestDeps(dialect);
    await addKey(deps, 'key_next', 'upcoming');
    const forged = await generateSigningKey('ES256');
    const { signingKeys } = deps.store.read.tables;
    await deps.store.tx(({ db }) =>
      db.update(signingKeys).set({ public_jwk: forged.publicJwk }).where(eq(signingKeys.kid, 'key_next')),
    );
    const { signer } = signerAt(deps);
    expect(await signer.find('key_next')).toBeNull();
    await deps.store.tx(({ db }) => db.update(signingKeys).set({ public_jwk: forged.publicJwk }));
    await expect(signerAt(deps).signer.active()).rejects.toThrow('No signing key is active');
  });

  it('those who need the set at once read it once, and after a failure it is read again', async () => {
    const deps = await openTestDeps(dialect);
    let reads = 0;
    const store = {
      ...deps.store,
      get read() {
        if (++reads === 1) throw new Error('down');
        return deps.store.read;
      },
    };
    const signer = createSigner(store, deps.keyring, () => 0);
    await expect(signer.active()).rejects.toThrow('down');
    await Promise.all(Array.from({ length: 20 }, () => signer.active()));
    expect(reads).toBe(2);
  });

  it('listSigningKeys() tells of every key and of no private half', async () => {
    const deps = await openTestDeps(dialect);
    deps.clock.now += 1;
    await addKey(deps, 'key_next', 'upcoming');
    const keys = await listSigningKeys(deps);
    expect(keys).toMatchObject([
      { kid: 'key_next', state: 'upcoming', activatedAt: null },
      { state: 'active', alg: 'ES256' },
    ]);
    expect(Object.keys(keys[0] ?? {}).sort()).toEqual([
      'activatedAt',
      'alg',
      'createdAt',
      'kid',
      'retiredAt',
      'state',
    ]);
  });

  it.each(SIGNING_ALGS)(
    'a key of %s that was sealed and read back signs what its public half verifies',
    async (alg) => {
      const deps = await openTestDeps(dialect);
      const { signingKeys } = deps.store.read.tables;
      await deps.store.tx(({ db }) => db.delete(signingKeys));
      await addKey(deps, 'key_only', 'active', alg);
      const { signer } = signerAt(deps);
      const claims = JSON.stringify({ iss: ISSUER, sub: 'mch_a', jti: 'mt_a' });
      const jwt = await signM2mJwt(await signer.active(), claims);
      expect(await verifyM2mJwt(jwt, ISSUER, signer.find)).toEqual({
        kid: 'key_only',
        jti: 'mt_a',
        sub: 'mch_a',
      });
    },
  );
});

const admin = callerWith('admin');
const asVerifier: Authorize = (principal) => authorize(principal, 'credentials.verify', true);

/** Another process on the same database, which has read the keys already. */
async function neighbourOf(deps: TestDeps): Promise<Deps> {
  const neighbour = { ...deps, signer: createSigner(deps.store, deps.keyring, () => 0) };
  await neighbour.signer.active();
  return neighbour;
}

const publishedBy = async ({ signer }: Deps) => (await signer.jwks()).keys.map((key) => key['kid']);

const stateOf = async (deps: Deps, kid: string) =>
  (await listSigningKeys(deps)).find((key) => key.kid === kid)?.state;

async function kidsInState(deps: Deps, state: string) {
  return (await listSigningKeys(deps)).flatMap((key) => (key.state === state ? [key.kid] : []));
}

/** Whether a connection to the test's PostgreSQL database waits for a lock. */
async function someoneWaits({ store }: Deps) {
  const waiting = await store.read.db
    .select({ pid: sql`pid` })
    .from(sql`pg_stat_activity`)
    .where(sql`datname = current_database() and wait_event_type = 'Lock'`);
  return waiting.length > 0;
}

const activate = (deps: Deps, kid: string, force = true) => activateSigningKey(deps, admin, { kid, force });

describeOnEachDialect('the life of a signing key', (dialect) => {
  /** `a` may call `b`. */
  async function setup() {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const b = await newMachine(deps, 'b');
    await allow(deps, a.id, b.id, ['read']);
    const first = (await deps.signer.active()).kid;
    const mint = async (on: Deps = deps, ttlSeconds = 60) => {
      const input = createM2mTokenInput.parse({ format: 'jwt', ttlSeconds });
      return (await createM2mToken(on, a.caller, input)).token ?? '';
    };
    /** Valid, or why not. */
    const told = async (token: string, on: Deps = deps) => {
      const answer = await verify(
        on,
        presented(b.secret),
        verifyInput.parse({ credential: token }),
        asVerifier,
      );
      return answer.valid ? 'valid' : answer.reason;
    };
    return { deps, a, b, first, mint, told };
  }

  it.each(SIGNING_ALGS)(
    '%s: published before it signs, verifies while it retires, and is gone after',
    async (alg) => {
      const { deps, first, mint, told } = await setup();
      const old = await mint();
      const { kid } = await createSigningKey(deps, admin, { alg });
      expect(await publishedBy(deps)).toEqual(expect.arrayContaining([first, kid]));
      expect(decodeProtectedHeader(await mint())).toMatchObject({ kid: first });

      expect(await activate(deps, kid)).toMatchObject({ state: 'active', activatedAt: deps.clock.now });
      const token = await mint();
      expect(decodeProtectedHeader(token)).toMatchObject({ kid, alg });
      expect([await told(old), await told(token)]).toEqual(['valid', 'valid']);
      expect(await stateOf(deps, first)).toBe('retiring');
      expect(await publishedBy(deps)).toEqual(expect.arrayContaining([first, kid]));

      deps.clock.now += 60_000;
      await retireSigningKey(deps, admin, { kid: first });
      expect(await publishedBy(deps)).toEqual([kid]);
      expect(await told(old)).toBe('expired');
    },
  );

  it.each(SIGNING_ALGS)(
    '%s: an emergency has its tokens refused at once, where the key is in memory too',
    async (alg) => {
      const { deps, first, mint, told } = await setup();
      const { kid } = await createSigningKey(deps, admin, { alg });
      await activate(deps, kid);
      const neighbour = await neighbourOf(deps);
      const [token, older] = [await mint(), await mint(neighbour)];
      expect([await told(token, neighbour), await told(older, neighbour)]).toEqual(['valid', 'valid']);

      await emergencyRetireSigningKey(deps, admin, { kid, reason: 'leaked' });
      for (const on of [deps, neighbour])
        expect([await told(token, on), await told(older, on)]).toEqual(['revoked', 'revoked']);
      expect(await publishedBy(deps)).not.toContain(kid);
      expect(await publishedBy(neighbour)).toContain(kid);

      const successor = await mint(neighbour);
      const [active] = await kidsInState(deps, 'active');
      expect(decodeProtectedHeader(successor)).toMatchObject({ kid: active, alg });
      expect([await told(successor), await told(successor, neighbour)]).toEqual(['valid', 'valid']);
      expect(await stateOf(deps, first)).toBe('retiring');
    },
  );

  it('what had expired before an emergency reads expired, and what lived reads revoked for good', async () => {
    const { deps, first, mint, told } = await setup();
    const [short, long] = [await mint(deps, 1), await mint()];
    deps.clock.now += 1_000;
    await emergencyRetireSigningKey(deps, admin, { kid: first });
    deps.clock.now += 3_600_000;
    expect([await told(short), await told(long)]).toEqual(['expired', 'revoked']);
  });

  it('in an emergency the key published longest takes over; retiring another leaves the active one be', async () => {
    const { deps, first } = await setup();
    const next = await createSigningKey(deps, admin, { alg: 'EdDSA' });
    deps.clock.now += 1_000;
    const spare = await createSigningKey(deps, admin, {});
    const leaked = await createSigningKey(deps, admin, {});
    await emergencyRetireSigningKey(deps, admin, { kid: leaked.kid });
    expect(await kidsInState(deps, 'active')).toEqual([first]);
    await emergencyRetireSigningKey(deps, admin, { kid: first });
    expect(await kidsInState(deps, 'active')).toEqual([next.kid]);
    expect(await kidsInState(deps, 'upcoming')).toEqual([spare.kid]);
    const { data } = await listEvents(deps, { after: 0, limit: 100 });
    expect(data.at(-1)).toMatchObject({
      type: 'signing_key.emergency_retired',
      objectId: first,
      data: { successorKid: next.kid, selector: { signingKeyId: first } },
    });
  });

  it('another process signs with the new key at once, and never with one that was retired', async () => {
    const { deps, first, mint } = await setup();
    const neighbour = await neighbourOf(deps);
    const { kid } = await createSigningKey(deps, admin, {});
    await activate(deps, kid);
    expect((await neighbour.signer.active()).kid).toBe(first);
    expect(decodeProtectedHeader(await mint(neighbour))).toMatchObject({ kid });
  });

  it('while a token is being written, its key cannot be retired', async () => {
    const { deps, first } = await setup();
    const order: string[] = [];
    const writing = deps.store.tx(async (tx) => {
      expect(await isStillActive(tx, first)).toBe(true);
      const retiring = emergencyRetireSigningKey(deps, admin, { kid: first }).then(() =>
        order.push('retired'),
      );
      while (dialect === 'postgres' && order.length === 0 && !(await someoneWaits(deps)));
      order.push('written');
      return { retiring };
    });
    await (await writing).retiring;
    expect(order).toEqual(['written', 'retired']);
  });

  it('activateSigningKey() refuses a key that others may not know yet, unless forced', async () => {
    const { deps } = await setup();
    const { kid } = await createSigningKey(deps, admin, {});
    deps.clock.now += 364_999;
    await expect(activate(deps, kid, false)).rejects.toMatchObject({ code: 'too_early' });
    deps.clock.now += 1;
    expect(await activate(deps, kid, false)).toMatchObject({ state: 'active' });
  });

  it.each([2, 5])('of %i activations at the same time exactly one leaves its key active', async (count) => {
    const { deps, first } = await setup();
    const neighbour = await neighbourOf(deps);
    const keys = await Promise.all(Array.from({ length: count }, () => createSigningKey(deps, admin, {})));
    await Promise.all(keys.map(({ kid }, i) => activate(i % 2 ? neighbour : deps, kid)));
    expect(await kidsInState(deps, 'active')).toHaveLength(1);
    const retiring = await kidsInState(deps, 'retiring');
    expect(retiring).toHaveLength(count);
    expect(retiring).toContain(first);
    await expectChained(deps);
  });

  it('retireSigningKey() waits for the last token, says until when, and takes it at the instant of its expiry', async () => {
    const { deps, first, mint } = await setup();
    await mint(deps, 30);
    await mint(deps, 60);
    await mint(deps, 10);
    const { kid } = await createSigningKey(deps, admin, {});
    await expect(retireSigningKey(deps, admin, { kid: first })).rejects.toMatchObject({
      code: 'wrong_state',
    });
    await activate(deps, kid);
    await mint(deps, 3_600);
    const until = deps.clock.now + 60_000;
    deps.clock.now = until - 1;
    await expect(retireSigningKey(deps, admin, { kid: first })).rejects.toMatchObject({
      code: 'too_early',
      message: expect.stringContaining(new Date(until).toISOString()),
    });
    deps.clock.now = until;
    expect(await retireSigningKey(deps, admin, { kid: first })).toMatchObject({
      state: 'retired',
      retiredAt: until,
    });
    await expect(activate(deps, first)).rejects.toMatchObject({ code: 'wrong_state' });
  });

  it('retireSigningKey() takes a JWT of which no key was noted for one of any key', async () => {
    const { deps, first, mint } = await setup();
    await mint();
    await deps.store.tx(({ db, tables }) => db.update(tables.m2mTokens).set({ signing_kid: null }));
    const { kid } = await createSigningKey(deps, admin, {});
    await activate(deps, kid);
    await expect(retireSigningKey(deps, admin, { kid: first })).rejects.toMatchObject({ code: 'too_early' });
  });

  it('a key whose row was written by somebody else is there for no command, and never takes over', async () => {
    const { deps, first } = await setup();
    const { kid } = await createSigningKey(deps, admin, {});
    const { signingKeys } = deps.store.read.tables;
    const { publicJwk } = await generateSigningKey('ES256');
    await deps.store.tx(({ db }) =>
      db.update(signingKeys).set({ public_jwk: publicJwk }).where(eq(signingKeys.kid, kid)),
    );
    for (const command of [
      () => activate(deps, kid),
      () => retireSigningKey(deps, admin, { kid }),
      () => emergencyRetireSigningKey(deps, admin, { kid }),
    ])
      await expect(command()).rejects.toMatchObject({ code: 'not_found' });
    await emergencyRetireSigningKey(deps, admin, { kid: first });
    expect(await kidsInState(deps, 'upcoming')).toEqual([kid]);
    expect(await publishedBy(deps)).toEqual(await kidsInState(deps, 'active'));
  });

  it('a retired key that somebody had retired later, or made active, brings no token back', async () => {
    const { deps, first, mint, told } = await setup();
    const token = await mint();
    await emergencyRetireSigningKey(deps, admin, { kid: first });
    const { signingKeys } = deps.store.read.tables;
    for (const forged of [{ retired_at: deps.clock.now + 3_600_000 }, { state: 'retiring' as const }]) {
      await deps.store.tx(({ db }) => db.update(signingKeys).set(forged).where(eq(signingKeys.kid, first)));
      expect(await told(token, await neighbourOf(deps))).toBe('unknown');
    }
  });

  it('createSigningKey() makes keys like the one that signs, and no more than the JWKS should hold', async () => {
    const { deps } = await setup();
    expect(await createSigningKey(deps, admin, {})).toMatchObject({ alg: 'ES256', state: 'upcoming' });
    for (let i = 0; i < 18; i++) await createSigningKey(deps, admin, {});
    await expect(createSigningKey(deps, admin, {})).rejects.toMatchObject({ code: 'limit_reached' });
  });
});
