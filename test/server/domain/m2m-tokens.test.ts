import { eq, sql } from 'drizzle-orm';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { expect, it } from 'vitest';
import type { Caller } from '../../../server/deps.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  getM2mToken,
  listM2mTokens,
  listM2mTokensInput,
  type M2mToken,
  revokeAllM2mTokens,
  revokeM2mToken,
  revokeM2mTokenByValue,
} from '../../../server/domain/m2m-tokens.ts';
import { deleteMachine, setMachineEnabled, updateMachine } from '../../../server/domain/machines.ts';
import { SEARCH_CANDIDATES_MAX } from '../../../server/domain/pages.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { allow, forbid, newMachine } from '../../support/machines.ts';

const admin = callerWith('admin');

const mint = (deps: TestDeps, caller: Caller, input: Record<string, unknown> = {}) =>
  createM2mToken(deps, caller, createM2mTokenInput.parse(input));
const list = (deps: TestDeps, caller: Caller, input: Record<string, unknown> = {}) =>
  listM2mTokens(deps, caller, listM2mTokensInput.parse(input));
const idsOf = async (page: Promise<{ data: M2mToken[] }>) => (await page).data.map((token) => token.id);

/** Types of the events appended since the last look. */
async function newEvents(deps: TestDeps, after: number) {
  return (await listEvents(deps, { after, limit: 500 })).data.map((event) => event.type);
}
const lastSeq = async (deps: TestDeps) => (await listEvents(deps, { after: 0, limit: 500 })).nextAfter;

describeOnEachDialect('m2m tokens', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const [a, b, c] = [
      await newMachine(deps, 'a'),
      await newMachine(deps, 'b'),
      await newMachine(deps, 'c'),
    ] as const;
    await allow(deps, a.id, b.id, ['read', 'write']);
    await allow(deps, a.id, c.id, ['read', 'admin']);
    return { deps, a, b, c };
  }

  it('createM2mToken() is for every machine its own may call and has every scope those ways allow', async () => {
    const { deps, a, b, c } = await setup();
    const { token = '', ...view } = await mint(deps, a.caller);
    expect(token).toMatch(/^mt_[0-9A-Za-z]{49}$/);
    expect(view).toEqual({
      id: expect.stringMatching(/^mt_[0-9a-f]{32}$/),
      machineId: a.id,
      format: 'opaque',
      audience: [b.id, c.id].sort(),
      scopes: expect.arrayContaining(['read', 'write', 'admin']),
      claims: null,
      state: 'live',
      createdAt: deps.clock.now,
      expiresAt: deps.clock.now + 3_600_000,
      revokedAt: null,
      revocationReason: null,
      lastUsedAt: null,
    });
    expect(view.scopes).toHaveLength(3);
    expect(await getM2mToken(deps, a.caller, { id: view.id })).toEqual(view);
  });

  it('createM2mToken() narrows to the audience and scopes it is asked for', async () => {
    const { deps, a, b } = await setup();
    const token = await mint(deps, a.caller, { audience: [b.id], claims: { tenant: 't1' }, ttlSeconds: 60 });
    expect(token).toMatchObject({
      audience: [b.id],
      scopes: ['read', 'write'],
      claims: { tenant: 't1' },
      expiresAt: deps.clock.now + 60_000,
    });
    expect(await mint(deps, a.caller, { audience: [b.id], scopes: ['write'] })).toMatchObject({
      scopes: ['write'],
    });
  });

  it('createM2mToken() mints for nobody when its machine may call nobody', async () => {
    const { deps, b } = await setup();
    expect(await mint(deps, b.caller)).toMatchObject({ audience: [], scopes: [], state: 'live' });
  });

  it.each([
    [
      'an audience it may not call',
      (ids: { b: string; a: string }) => ({ audience: [ids.b, ids.a] }),
      'audience',
    ],
    ['a scope no way allows', () => ({ scopes: ['delete'] }), 'scopes'],
    [
      'a scope that another way allows',
      (ids: { b: string }) => ({ audience: [ids.b], scopes: ['admin'] }),
      'scopes',
    ],
    ["a scope that looks like a machine's id", () => ({ scopes: ['mch_all'] }), 'scopes'],
  ])('createM2mToken() refuses %s', async (_, input, field) => {
    const { deps, a, b } = await setup();
    await expect(mint(deps, a.caller, input({ a: a.id, b: b.id }))).rejects.toMatchObject({
      code: 'scope_not_allowed',
      field,
    });
    expect(await idsOf(list(deps, a.caller))).toEqual([]);
  });

  it('createM2mToken() never gives a scope beginning mch_, even if a row allows it', async () => {
    const { deps, a, b } = await setup();
    await deps.store.tx(({ db, tables }) =>
      db.update(tables.machineScopes).set({ scopes: ['mch_x', 'read'] }),
    );
    expect((await mint(deps, a.caller, { audience: [b.id] })).scopes).toEqual(['read']);
  });

  it("createM2mToken() refuses a lifetime above the machine's maximum and takes the maximum itself", async () => {
    const { deps, a } = await setup();
    await updateMachine(deps, admin, { id: a.id, maxTokenTtlSeconds: 7200 });
    await expect(mint(deps, a.caller, { ttlSeconds: 7201 })).rejects.toMatchObject({
      code: 'invalid_input',
      field: 'ttlSeconds',
      message: "Cannot create token: 'ttlSeconds' must be at most 7200, the machine's maximum, got 7201",
    });
    expect(await mint(deps, a.caller, { ttlSeconds: 7200 })).toMatchObject({
      expiresAt: deps.clock.now + 7_200_000,
    });
  });

  it.each(
    'iss sub aud exp nbf iat jti scope scopes scp client_id act may_act cnf azp sid org_id status cat __proto__'.split(
      ' ',
    ),
  )("createM2mToken() refuses the reserved claim '%s'", (claim) => {
    const claims: unknown = JSON.parse(`{"ok": 1, "${claim}": "x"}`);
    expect(() => createM2mTokenInput.parse({ claims })).toThrow(
      expect.objectContaining({ code: 'reserved_claim' }),
    );
  });

  it('createM2mToken() refuses claims above 4 KB, or nested so deep that reading them would fail', () => {
    const nested = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
    expect(createM2mTokenInput.safeParse({ claims: { a: 'x'.repeat(4096) } }).success).toBe(false);
    expect(createM2mTokenInput.safeParse({ claims: { a: 'x'.repeat(4000) } }).success).toBe(true);
    expect(createM2mTokenInput.safeParse({ claims: { a: nested(1900) } }).success).toBe(false);
    expect(createM2mTokenInput.safeParse({ claims: { a: nested(31) } }).success).toBe(true);
  });

  it('createM2mToken() signs a JWT with the claims of the contract, at an instant its row shares', async () => {
    const { deps, a, b } = await setup();
    deps.clock.now += 789;
    const { token = '', ...view } = await mint(deps, a.caller, {
      format: 'jwt',
      audience: [b.id],
      scopes: ['read'],
      claims: { tenant: 't1' },
      ttlSeconds: 60,
    });
    const seconds = Math.floor(deps.clock.now / 1000);
    expect(decodeJwt(token)).toEqual({
      iss: deps.publicUrl,
      sub: a.id,
      jti: view.id,
      iat: seconds,
      nbf: seconds,
      exp: seconds + 60,
      aud: [b.id],
      scopes: b.id,
      scope: 'read',
      tenant: 't1',
      status: {
        status_list: {
          idx: expect.any(Number),
          uri: expect.stringMatching(/^http:\/\/127\.0\.0\.1:4400\/v1\/status-lists\/sl_[0-9A-Za-z]{27}$/),
        },
      },
    });
    expect(decodeProtectedHeader(token)).toEqual({
      alg: 'ES256',
      typ: 'JWT',
      cat: 'cl_B7d4PD333AAA',
      kid: (await deps.signer.active()).kid,
    });
    expect(view.expiresAt).toBe((seconds + 60) * 1000);
    expect(await getM2mToken(deps, a.caller, { id: view.id })).toEqual(view);
  });

  it('createM2mToken() refuses a JWT that would be too large to verify, and keeps no row of it', async () => {
    const { deps, a, b } = await setup();
    const scopes = Array.from({ length: 60 }, (_, i) => `${'s'.repeat(120)}${i}`);
    await forbid(deps, a.id, b.id);
    await allow(deps, a.id, b.id, scopes);
    const input = { audience: [b.id], claims: { a: 'x'.repeat(4000) } };
    await expect(mint(deps, a.caller, { ...input, format: 'jwt' })).rejects.toMatchObject({
      code: 'invalid_input',
      field: 'format',
    });
    expect(await idsOf(list(deps, a.caller))).toEqual([]);
    expect(await mint(deps, a.caller, input)).toMatchObject({ state: 'live' });
  });

  it.each(['disabled', 'deleted', 'secret revoked', 'secret expired'])(
    'createM2mToken() refuses a machine that is %s since it was authenticated',
    async (how) => {
      const { deps, a } = await setup();
      const { secrets } = deps.store.read.tables;
      if (how === 'disabled') await setMachineEnabled(deps, admin, a.id, false);
      if (how === 'deleted') await deleteMachine(deps, admin, a.id);
      const ended = {
        ...(how === 'secret revoked' && { revoked_at: 1 }),
        ...(how === 'secret expired' && { expires_at: deps.clock.now }),
      };
      if (how.startsWith('secret')) await deps.store.tx(({ db }) => db.update(secrets).set(ended));
      await expect(mint(deps, a.caller)).rejects.toMatchObject({ code: 'unauthenticated' });
      const { db, tables } = deps.store.read;
      expect(await db.select().from(tables.m2mTokens)).toEqual([]);
    },
  );

  it('createM2mToken() refuses a caller that is no machine', async () => {
    const { deps } = await setup();
    await expect(mint(deps, admin)).rejects.toMatchObject({ code: 'forbidden' });
  });

  it('createM2mToken() appends no event and stores no value', async () => {
    const { deps, a } = await setup();
    const before = await lastSeq(deps);
    const { token = '' } = await mint(deps, a.caller);
    await mint(deps, a.caller, { format: 'jwt' });
    expect(await newEvents(deps, before)).toEqual([]);
    const { db, tables } = deps.store.read;
    expect(JSON.stringify(await db.select().from(tables.m2mTokens))).not.toContain(token.slice(3, 20));
  });

  it('createM2mToken() answers a pooled token to the very same request while enough life is left', async () => {
    const { deps, a, b } = await setup();
    const request = { ttlSeconds: 100, minRemainingTtlSeconds: 40, claims: { x: 1, y: { p: 1, q: 2 } } };
    const first = await mint(deps, a.caller, request);
    expect(await mint(deps, a.caller, { ...request, claims: { y: { q: 2, p: 1 }, x: 1 } })).toEqual(first);
    deps.clock.now += 60_000;
    expect((await mint(deps, a.caller, request)).id).toBe(first.id);
    deps.clock.now += 1;
    expect((await mint(deps, a.caller, request)).id).not.toBe(first.id);
    const others = [
      { ...request, claims: { x: 1 } },
      { ...request, ttlSeconds: 101 },
      { ...request, audience: [b.id] },
      { ...request, scopes: ['read'] },
    ];
    const ids = new Set<string>();
    for (const other of others) ids.add((await mint(deps, a.caller, other)).id);
    expect(ids.size).toBe(4);
  });

  it("createM2mToken() pools for one machine's one secret", async () => {
    const { deps, a, b } = await setup();
    const second = { ...a.caller, principal: { ...a.caller.principal, secretId: 'sec_other' } } as Caller;
    await deps.store.tx(async ({ db, tables: { secrets } }) => {
      const [row] = await db.select().from(secrets);
      if (row)
        await db.insert(secrets).values({
          ...row,
          id: 'sec_other',
          owner_kind: 'machine',
          owner_id: a.id,
          hash: Buffer.alloc(32, 1),
        });
    });
    const ids = [a.caller, second, b.caller].map(
      async (caller) => (await mint(deps, caller, { minRemainingTtlSeconds: 10 })).id,
    );
    expect(new Set(await Promise.all(ids)).size).toBe(3);
  });

  it.each(['revoked', 'revoked with all', 'narrowed'])(
    'createM2mToken() never answers a pooled token that was %s',
    async (how) => {
      const { deps, a, b } = await setup();
      const first = await mint(deps, a.caller, { minRemainingTtlSeconds: 10 });
      if (how === 'revoked') await revokeM2mToken(deps, admin, { id: first.id });
      if (how === 'revoked with all') await revokeAllM2mTokens(deps, admin, { machineId: a.id });
      if (how === 'narrowed') await forbid(deps, a.id, b.id);
      const next = await mint(deps, a.caller, { minRemainingTtlSeconds: 10 });
      expect(next.id).not.toBe(first.id);
      expect(next.token).not.toBe(first.token);
    },
  );

  it('createM2mToken() pools no JWTs, and nothing that outlives its own lifetime', async () => {
    const { deps, a } = await setup();
    for (const input of [
      { format: 'jwt', minRemainingTtlSeconds: 10 },
      { ttlSeconds: 60, minRemainingTtlSeconds: 60 },
    ]) {
      await expect(mint(deps, a.caller, input)).rejects.toMatchObject({
        code: 'invalid_input',
        field: 'minRemainingTtlSeconds',
      });
    }
  });

  it('listM2mTokens() walks every token once, the newest first, by cursor', async () => {
    const { deps, a } = await setup();
    const minted: string[] = [];
    for (let i = 0; i < 7; i++) {
      deps.clock.now += i % 3;
      minted.push((await mint(deps, a.caller)).id);
    }
    const walked: M2mToken[] = [];
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await list(deps, admin, { machineId: a.id, limit: 2, ...(cursor && { cursor }) });
      walked.push(...page.data);
      cursor = page.nextCursor;
    }
    expect(new Set(walked.map((token) => token.id))).toEqual(new Set(minted));
    expect(walked).toHaveLength(7);
    const instants = walked.map((token) => token.createdAt);
    expect(instants).toEqual(instants.toSorted((x, y) => y - x));
  });

  it('listM2mTokens() stops looking for a rare state after as many tokens as one page may cost, and goes on by cursor', async () => {
    const { deps, a } = await setup();
    const rare = await mint(deps, a.caller);
    await revokeM2mToken(deps, admin, { id: rare.id });
    await insertLiveTokens(deps, a.id, SEARCH_CANDIDATES_MAX);
    const first = await list(deps, a.caller, { state: 'revoked' });
    expect(first.data).toEqual([]);
    expect(first.nextCursor).not.toBeNull();
    const second = await list(deps, a.caller, { state: 'revoked', cursor: first.nextCursor ?? '' });
    expect(second.data.map((token) => token.id)).toEqual([rare.id]);
    expect(second.nextCursor).toBeNull();
  });

  it('listM2mTokens() finds tokens by state, and each token in exactly one', async () => {
    const { deps, a } = await setup();
    const byAll = await mint(deps, a.caller, { ttlSeconds: 60 });
    await revokeAllM2mTokens(deps, admin, { machineId: a.id });
    const expired = await mint(deps, a.caller, { ttlSeconds: 60 });
    const expiredRevoked = await mint(deps, a.caller, { ttlSeconds: 60 });
    const live = await mint(deps, a.caller, { ttlSeconds: 120 });
    const revoked = await mint(deps, a.caller, { ttlSeconds: 120 });
    await revokeM2mToken(deps, admin, { id: revoked.id });
    await revokeM2mToken(deps, admin, { id: expiredRevoked.id });
    deps.clock.now += 60_000;
    const inState = async (state: string) => new Set(await idsOf(list(deps, a.caller, { state })));
    expect(await inState('live')).toEqual(new Set([live.id]));
    expect(await inState('expired')).toEqual(new Set([expired.id]));
    expect(await inState('revoked')).toEqual(new Set([revoked.id, expiredRevoked.id, byAll.id]));
    for (const state of ['live', 'expired', 'revoked']) {
      const { data } = await list(deps, a.caller, { state });
      expect(new Set(data.map((token) => token.state))).toEqual(new Set([state]));
    }
  });

  it('listM2mTokens() needs a machine from those who are none, and one that exists', async () => {
    const { deps, a } = await setup();
    await expect(list(deps, admin)).rejects.toMatchObject({ code: 'invalid_input', field: 'machineId' });
    await deleteMachine(deps, admin, a.id);
    await expect(list(deps, admin, { machineId: a.id })).rejects.toMatchObject({ code: 'not_found' });
  });

  it('revokeM2mToken() revokes once, with one event, and answers the second call as it stands', async () => {
    const { deps, a } = await setup();
    const { id, expiresAt } = await mint(deps, a.caller);
    const before = await lastSeq(deps);
    const first = await revokeM2mToken(deps, admin, { id, reason: 'leaked' });
    expect(first).toMatchObject({ state: 'revoked', revokedAt: deps.clock.now, revocationReason: 'leaked' });
    deps.clock.now += 5;
    expect(await revokeM2mToken(deps, a.caller, { id, reason: 'again' })).toEqual(first);
    expect((await listEvents(deps, { after: before, limit: 10 })).data).toMatchObject([
      {
        type: 'm2m_token.revoked',
        objectId: id,
        subject: a.id,
        data: { machineId: a.id, format: 'opaque', expiresAt, reason: 'leaked' },
      },
    ]);
  });

  it('revokeM2mToken() lets exactly one of many that revoke at once append the event', async () => {
    const { deps, a } = await setup();
    const { id } = await mint(deps, a.caller);
    const before = await lastSeq(deps);
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => revokeM2mToken(deps, admin, { id })));
    expect(new Set(outcomes.map((token) => token.state))).toEqual(new Set(['revoked']));
    expect(await newEvents(deps, before)).toEqual(['m2m_token.revoked']);
  });

  // SQLite has one writer: there nobody else can be between reading and writing.
  if (dialect === 'postgres') {
    it('revokeM2mToken() appends one event when two find the token live and then wait for its row', async () => {
      const { deps, a } = await setup();
      const { id } = await mint(deps, a.caller);
      const before = await lastSeq(deps);
      const revocations = await deps.store.tx(async ({ db, tables: { m2mTokens: t } }) => {
        await db.update(t).set({ id }).where(eq(t.id, id));
        const started = [1, 2].map(() => revokeM2mToken(deps, admin, { id }));
        while ((await waitingForLocks(deps)) < 2);
        return { started };
      });
      const [first, second] = await Promise.all(revocations.started);
      expect(first).toMatchObject({ state: 'revoked' });
      expect(second).toEqual(first);
      expect(await newEvents(deps, before)).toEqual(['m2m_token.revoked']);
    });
  }

  it('a machine finds the token of another as missing as one that never was', async () => {
    const { deps, a, b } = await setup();
    const { id, token: value = '' } = await mint(deps, a.caller);
    const missing = `mt_${'0'.repeat(32)}`;
    const before = await lastSeq(deps);
    for (const refuse of [getM2mToken, revokeM2mToken]) {
      const foreign = await refuse(deps, b.caller, { id }).catch((error: unknown) => error);
      const unknown = await refuse(deps, b.caller, { id: missing }).catch((error: unknown) => error);
      expect(foreign).toMatchObject({ code: 'not_found', message: `No M2M token has the id '${id}'` });
      expect(unknown).toMatchObject({ code: 'not_found', message: `No M2M token has the id '${missing}'` });
    }
    await expect(list(deps, b.caller, { machineId: a.id })).rejects.toMatchObject({ code: 'not_found' });
    await expect(revokeAllM2mTokens(deps, b.caller, { machineId: a.id })).rejects.toMatchObject({
      code: 'not_found',
    });
    expect(await revokeM2mTokenByValue(deps, b.caller, anywhere, { value })).toEqual({ accepted: true });
    expect(await newEvents(deps, before)).toEqual([]);
    expect(await getM2mToken(deps, a.caller, { id })).toMatchObject({ state: 'live' });
  });

  it.each(['opaque', 'jwt'])('revokeM2mTokenByValue() revokes a token by its %s value', async (format) => {
    const { deps, a } = await setup();
    const { id, token: value = '' } = await mint(deps, a.caller, { format });
    expect(await revokeM2mTokenByValue(deps, a.caller, anywhere, { value, reason: 'leaked' })).toEqual({
      accepted: true,
    });
    expect(await getM2mToken(deps, admin, { id })).toMatchObject({
      state: 'revoked',
      revocationReason: 'leaked',
    });
  });

  it('revokeM2mTokenByValue() answers the same for what it does not know, and revokes nothing', async () => {
    const { deps, a } = await setup();
    const { token = '' } = await mint(deps, a.caller, { format: 'jwt' });
    const before = await lastSeq(deps);
    const forged = token.slice(0, token.lastIndexOf('.') + 1) + 'A'.repeat(86);
    for (const value of ['x', `mt_${'0'.repeat(49)}`, `ak_${'0'.repeat(49)}`, forged]) {
      expect(await revokeM2mTokenByValue(deps, admin, anywhere, { value })).toEqual({ accepted: true });
    }
    expect(await newEvents(deps, before)).toEqual([]);
  });

  it("revokeM2mTokenByValue() refuses a caller's own kind of credential", async () => {
    const { deps, a } = await setup();
    for (const value of [deps.adminKey, a.secret]) {
      await expect(revokeM2mTokenByValue(deps, admin, anywhere, { value })).rejects.toMatchObject({
        code: 'invalid_input',
        field: 'value',
      });
    }
  });

  it('revokeAllM2mTokens() revokes all that were minted until now, in one event, and none minted after', async () => {
    const { deps, a, b } = await setup();
    const before = await mint(deps, a.caller);
    const jwt = await mint(deps, a.caller, { format: 'jwt' });
    const other = await mint(deps, b.caller);
    const seq = await lastSeq(deps);
    expect(await revokeAllM2mTokens(deps, a.caller, {})).toEqual({
      machineId: a.id,
      revokedAt: deps.clock.now,
    });
    const after = await mint(deps, a.caller);
    for (const { id } of [before, jwt]) {
      expect(await getM2mToken(deps, admin, { id })).toMatchObject({
        state: 'revoked',
        revokedAt: deps.clock.now,
      });
    }
    for (const { id } of [other, after]) {
      expect(await getM2mToken(deps, admin, { id })).toMatchObject({ state: 'live' });
    }
    expect((await listEvents(deps, { after: seq, limit: 10 })).data).toMatchObject([
      { type: 'machine.tokens_revoked', objectId: a.id, data: { selector: { machineId: a.id } } },
    ]);
    expect((await revokeM2mToken(deps, admin, { id: before.id })).revocationReason).toBeNull();
    expect(await newEvents(deps, seq)).toHaveLength(1);
  });
});

async function waitingForLocks({ store }: TestDeps): Promise<number> {
  const waiting = sql`select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
  const { rows } = (await store.read.db.execute(waiting)) as unknown as { rows: unknown[] };
  return rows.length;
}

/** Rows as minting writes them, newer than all before, many at once. */
async function insertLiveTokens(deps: TestDeps, machineId: string, count: number) {
  const batch = 500;
  for (let from = 0; from < count; from += batch) {
    const rows = Array.from({ length: batch }, (_, i) => ({
      id: `mt_${(from + i).toString(16).padStart(32, '0')}`,
      machine_id: machineId,
      format: 'jwt' as const,
      secret_id: 'sec_many',
      generation: 0,
      audience: [],
      scopes: [],
      created_at: deps.clock.now + 1 + from + i,
      expires_at: deps.clock.now + 86_400_000,
    }));
    await deps.store.tx(async (tx) => {
      await tx.db.insert(tx.tables.m2mTokens).values(rows);
    });
  }
}
