import { inflateSync } from 'node:zlib';
import { eq } from 'drizzle-orm';
import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose';
import { describe, expect, it } from 'vitest';
import { setStatusBit } from '../../../server/crypto/status-list.ts';
import { createApiKey, createApiKeyInput } from '../../../server/domain/api-keys.ts';
import { verify, verifyInput } from '../../../server/domain/credentials.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  revokeAllM2mTokens,
  revokeM2mToken,
} from '../../../server/domain/m2m-tokens.ts';
import {
  deleteMachine,
  rotateMachineSecret,
  rotateMachineSecretInput,
  setMachineEnabled,
} from '../../../server/domain/machines.ts';
import {
  activateSigningKey,
  createSigningKey,
  createSigningKeyInput,
  emergencyRetireSigningKey,
} from '../../../server/domain/signing-keys.ts';
import {
  createStatusLists,
  listStatusLists,
  type StatusListToken,
  statusListUri,
} from '../../../server/domain/status-lists.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { allow, newMachine, type TestMachine } from '../../support/machines.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const admin = callerWith('admin');
const SECOND = 1_000;

interface Jwt {
  id: string;
  token: string;
  uri: string;
  idx: number;
}

async function mint(
  deps: TestDeps,
  { caller }: TestMachine,
  more: Record<string, unknown> = {},
): Promise<Jwt> {
  const input = createM2mTokenInput.parse({ format: 'jwt', ...more });
  const { id, token = '' } = await createM2mToken(deps, caller, input);
  const status = decodeJwt(token)['status'] as { status_list: { uri: string; idx: number } };
  return { id, token, ...status.status_list };
}

const idOf = (uri: string) => uri.slice(uri.lastIndexOf('/') + 1);
const find = (deps: TestDeps, { uri }: Pick<Jwt, 'uri'>) => deps.statusLists.find(deps, idOf(uri));

/** What the list says of a token: 1 for refused. */
function bitIn(jwt: string, { idx }: Pick<Jwt, 'idx'>): number {
  const { status_list } = decodeJwt<{ status_list: { lst: string } }>(jwt);
  const bits = inflateSync(Buffer.from(status_list.lst, 'base64url'));
  return ((bits[idx >> 3] ?? 0) >> (idx & 7)) & 1;
}

/** The same a second later, when the list may be another. */
async function bitOf(deps: TestDeps, token: Jwt): Promise<number> {
  deps.clock.now += SECOND;
  return bitIn((await find(deps, token)).jwt, token);
}

describeOnEachDialect('status lists', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await newMachine(deps, 'a'), await newMachine(deps, 'b')] as const;
    await allow(deps, a.id, b.id);
    return { deps, a, b };
  }

  it('find() answers a Status List Token of the draft, signed by the key that signs', async () => {
    const { deps, a } = await setup();
    deps.clock.now += 789;
    const token = await mint(deps, a);
    const { jwt, etag } = await find(deps, token);
    const verified = await jwtVerify(jwt, createLocalJWKSet(await deps.signer.jwks()), {
      typ: 'statuslist+jwt',
      subject: token.uri,
      currentDate: new Date(deps.clock.now),
    });
    expect(verified.protectedHeader).toEqual({
      alg: 'ES256',
      kid: (await deps.signer.active()).kid,
      typ: 'statuslist+jwt',
      cat: 'countersign_id',
    });
    const seconds = Math.floor(deps.clock.now / 1000);
    expect(verified.payload).toEqual({
      sub: token.uri,
      iat: seconds,
      exp: seconds + 3600,
      ttl: 60,
      status_list: {
        bits: 1,
        lst: expect.stringMatching(/^[A-Za-z0-9_-]+$/),
        aggregation_uri: `${deps.publicUrl}/v1/status-lists`,
      },
    });
    expect(
      inflateSync(Buffer.from((verified.payload['status_list'] as { lst: string }).lst, 'base64url')),
    ).toEqual(Buffer.alloc(2 ** 14));
    expect(etag).toMatch(/^"[A-Za-z0-9_-]{43}"$/);
  });

  it.each([
    ['its token is revoked', (deps: TestDeps, { id }: Jwt) => revokeM2mToken(deps, admin, { id })],
    [
      'all tokens of its machine are',
      (deps: TestDeps, _: Jwt, { id }: TestMachine) => revokeAllM2mTokens(deps, admin, { machineId: id }),
    ],
    [
      'its machine is deleted',
      (deps: TestDeps, _: Jwt, { id }: TestMachine) => deleteMachine(deps, admin, id),
    ],
    [
      'its machine is disabled',
      (deps: TestDeps, _: Jwt, { id }: TestMachine) => setMachineEnabled(deps, admin, id, false),
    ],
    [
      'the secret it was minted with is compromised',
      (deps: TestDeps, _: Jwt, { id }: TestMachine) =>
        rotateMachineSecret(deps, admin, rotateMachineSecretInput.parse({ id, compromised: true })),
    ],
  ])('the bit of a token is set once %s, and no other', async (_, refuse) => {
    const { deps, a, b } = await setup();
    const token = await mint(deps, a);
    const other = await mint(deps, b);
    expect(await bitOf(deps, token)).toBe(0);
    await refuse(deps, token, a);
    expect(await bitOf(deps, token)).toBe(1);
    expect(await bitOf(deps, other)).toBe(0);
    // A process that was never asked before says the same.
    expect(bitIn((await createStatusLists().find(deps, idOf(token.uri))).jwt, token)).toBe(1);
  });

  it('the bit is taken back once the machine is enabled again, unless the token was revoked meanwhile', async () => {
    const { deps, a } = await setup();
    const [token, revoked] = [await mint(deps, a), await mint(deps, a)];
    await setMachineEnabled(deps, admin, a.id, false);
    await revokeM2mToken(deps, admin, { id: revoked.id });
    expect(await bitOf(deps, token)).toBe(1);
    await setMachineEnabled(deps, admin, a.id, true);
    expect(await bitOf(deps, token)).toBe(0);
    expect(await bitOf(deps, revoked)).toBe(1);
  });

  it('a rotation without compromise changes no bit, and has the list signed no second time', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    const before = await find(deps, token);
    await rotateMachineSecret(deps, admin, rotateMachineSecretInput.parse({ id: a.id }));
    deps.clock.now += SECOND;
    expect(await find(deps, token)).toBe(before);
  });

  it('agrees with verify about every token, while machines come, go and are disabled', async () => {
    const { deps, a, b } = await setup();
    const [c, d] = [await newMachine(deps, 'c'), await newMachine(deps, 'd')] as const;
    for (const { id } of [c, d]) await allow(deps, id, b.id);
    const tokens: Jwt[] = [];
    for (const machine of [a, c, d]) for (let i = 0; i < 5; i++) tokens.push(await mint(deps, machine));
    async function disagreeing() {
      deps.clock.now += SECOND;
      const differing: string[] = [];
      for (const token of tokens) {
        const answer = await verify(
          deps,
          presented(b.secret),
          verifyInput.parse({ credential: token.token }),
          (principal) => principal ?? b.caller.principal,
        );
        if (bitIn((await find(deps, token)).jwt, token) !== (answer.valid ? 0 : 1)) differing.push(token.id);
      }
      return differing;
    }
    const steps = [
      () => revokeM2mToken(deps, admin, { id: tokens[0]?.id ?? '' }),
      () => revokeM2mToken(deps, admin, { id: tokens[7]?.id ?? '' }),
      () => setMachineEnabled(deps, admin, c.id, false),
      () => revokeAllM2mTokens(deps, admin, { machineId: a.id }),
      () => mint(deps, a).then((token) => tokens.push(token)),
      () => setMachineEnabled(deps, admin, c.id, true),
      () => deleteMachine(deps, admin, d.id),
      async () => emergencyRetireSigningKey(deps, admin, { kid: (await deps.signer.active()).kid }),
      () => mint(deps, a).then((token) => tokens.push(token)),
    ];
    expect(await disagreeing()).toEqual([]);
    for (const step of steps) {
      await step();
      expect(await disagreeing()).toEqual([]);
    }
  });

  it('shows a token whose minting was overtaken by the revocation of all, seconds later', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    const { m2mTokens: t } = deps.store.read.tables;
    const [row] = await deps.store.read.db.select().from(t);
    await revokeAllM2mTokens(deps, admin, { machineId: a.id });
    expect(await bitOf(deps, token)).toBe(1);
    const { index } = await deps.statusIndexes.take(deps);
    const late = { ...row, id: `mt_${'0'.repeat(32)}`, status_index: index } as typeof t.$inferInsert;
    await deps.store.tx(({ db }) => db.insert(t).values(late));
    deps.clock.now += 10 * SECOND;
    expect(await bitOf(deps, { ...token, idx: index })).toBe(1);
  });

  it('a token that has expired has no bit, at the latest an hour later', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a, { ttlSeconds: 60 });
    await revokeM2mToken(deps, admin, { id: token.id });
    expect(await bitOf(deps, token)).toBe(1);
    deps.clock.now += 3_600 * SECOND;
    expect(await bitOf(deps, token)).toBe(0);
  });

  it('find() shows what was done a second before, and looks once a second for all who ask', async () => {
    const { deps, a } = await setup();
    const [first, second] = [await mint(deps, a), await mint(deps, a)];
    let looks = 0;
    const signer = { ...deps.signer, active: () => deps.signer.active(void looks++) };
    const ask = () =>
      Promise.all(
        Array.from({ length: 200 }, () => deps.statusLists.find({ ...deps, signer }, idOf(first.uri))),
      );
    const [empty, ...others] = await ask();
    expect(new Set([empty, ...others]).size).toBe(1);
    expect(looks).toBe(1);
    await revokeM2mToken(deps, admin, { id: first.id });
    deps.clock.now += SECOND - 1;
    expect(new Set([empty, ...(await ask())]).size).toBe(1);
    expect(looks).toBe(1);
    deps.clock.now += 1;
    const [one, ...same] = await ask();
    expect(new Set([one, ...same]).size).toBe(1);
    expect(looks).toBe(2);
    expect([bitIn(one?.jwt ?? '', first), bitIn(one?.jwt ?? '', second)]).toEqual([1, 0]);
  });

  it('find() follows one that was begun too long ago by another', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let early: Promise<StatusListToken> | undefined;
    // By then it has read the rows.
    await new Promise<void>((read) => {
      const active = () => {
        read();
        return held.then(() => deps.signer.active());
      };
      early = deps.statusLists.find({ ...deps, signer: { ...deps.signer, active } }, idOf(token.uri));
    });
    await revokeM2mToken(deps, admin, { id: token.id });
    deps.clock.now += SECOND;
    const late = find(deps, token);
    release();
    expect(bitIn((await late).jwt, token)).toBe(1);
    expect(await early).not.toBe(await late);
  });

  it('find() answers the same token while nothing changed, and a new one before it grows old', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a, { ttlSeconds: 7_200 });
    const before = await find(deps, token);
    await createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }));
    await mint(deps, a);
    deps.clock.now += 14 * 60 * SECOND;
    expect(await find(deps, token)).toBe(before);
    deps.clock.now += 60 * SECOND;
    const after = await find(deps, token);
    const [old, young] = [decodeJwt(before.jwt), decodeJwt(after.jwt)];
    expect(young.exp).toBe((old.exp ?? 0) + 15 * 60);
    expect(young['status_list']).toEqual(old['status_list']);
  });

  it('find() signs anew once another key signs, also one that another process activated', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    const before = await find(deps, token);
    const { kid } = await createSigningKey(deps, admin, createSigningKeyInput.parse({}));
    // The key of before is in memory, and for seconds.
    await deps.signer.active();
    const elsewhere = { ...deps, signer: { ...deps.signer, forget: () => {} } };
    await activateSigningKey(elsewhere, admin, { kid, force: true });
    deps.clock.now += SECOND;
    const { jwt } = await find(deps, token);
    expect(jwt).not.toBe(before.jwt);
    expect(JSON.parse(Buffer.from(jwt.split('.')[0] ?? '', 'base64url').toString())).toMatchObject({ kid });
  });

  it('find() reads the whole list when more happened than it follows', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    expect(await bitOf(deps, token)).toBe(0);
    const tokens: Jwt[] = [];
    for (let i = 0; i < 510; i++) tokens.push(await mint(deps, a));
    await Promise.all(tokens.map(({ id }) => revokeM2mToken(deps, admin, { id })));
    deps.clock.now += SECOND;
    const { jwt } = await find(deps, token);
    expect(tokens.filter((revoked) => bitIn(jwt, revoked) === 0)).toEqual([]);
    expect(bitIn(jwt, token)).toBe(0);
  });

  it('a list that is all in use is read in steps, whatever its length', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    const { m2mTokens: t } = deps.store.read.tables;
    const [row] = await deps.store.read.db.select().from(t).where(eq(t.id, token.id));
    if (!row) throw new Error('The token has no row');
    const expected = Buffer.alloc(2 ** 14);
    for (let block = 0; block < 8; block++) {
      const rows: (typeof row)[] = [];
      for (let i = 0; i < 250; i++) {
        const { listId, index } = await deps.statusIndexes.take(deps);
        const isRevoked = i % 3 === 0;
        if (isRevoked) setStatusBit(expected, index);
        const id = `mt_${String(block * 250 + i).padStart(32, '0')}`;
        rows.push({
          ...row,
          id,
          status_list_id: listId,
          status_index: index,
          revoked_at: isRevoked ? 1 : null,
        });
      }
      await deps.store.tx(({ db }) => db.insert(t).values(rows));
    }
    const { jwt } = await find(deps, token);
    const { status_list } = decodeJwt<{ status_list: { lst: string } }>(jwt);
    expect(inflateSync(Buffer.from(status_list.lst, 'base64url')).equals(expected)).toBe(true);
  });

  it('find() fails while the database does, keeps what it has for its second, and recovers', async () => {
    const { deps, a } = await setup();
    const token = await mint(deps, a);
    const before = await find(deps, token);
    const broken = {
      ...deps,
      store: {
        ...deps.store,
        get read(): never {
          throw new Error('Lost');
        },
      },
    };
    const ask = () => deps.statusLists.find(broken, idOf(token.uri));
    expect(await ask()).toBe(before);
    deps.clock.now += SECOND;
    await expect(ask()).rejects.toThrow('Lost');
    expect(await find(deps, token)).toBe(before);
  });

  it.each(['', 'sl_', 'x', `sl_${'0'.repeat(27)}`, `sl_${'0'.repeat(28)}`, `../sl_${'0'.repeat(27)}`])(
    'find() knows no list %j',
    async (id) => {
      const { deps } = await setup();
      await expect(deps.statusLists.find(deps, id)).rejects.toMatchObject({ code: 'not_found' });
    },
  );

  it('listStatusLists() names all of them, page by page', async () => {
    const { deps } = await setup();
    expect(await listStatusLists(deps, null)).toEqual({ uris: [], next: null });
    const ids = Array.from({ length: 501 }, (_, i) => `sl_${String(i).padStart(27, '0')}`);
    const row = { seed: Buffer.alloc(32), blocks_taken: 1, created_at: 1, updated_at: 1 };
    await deps.store.tx(({ db, tables }) =>
      db.insert(tables.statusLists).values(ids.map((id) => ({ id, ...row }))),
    );
    const uris = ids.map((id) => statusListUri(deps.publicUrl, id));
    const next = `${deps.publicUrl}/v1/status-lists?after=${ids[499]}`;
    expect(await listStatusLists(deps, null)).toEqual({ uris: uris.slice(0, 500), next });
    expect(await listStatusLists(deps, ids[499] ?? '')).toEqual({ uris: uris.slice(500), next: null });
    await expect(listStatusLists(deps, 'x')).rejects.toMatchObject({ code: 'invalid_input', field: 'after' });
  });
});

describe('find() on SQLite', () => {
  it('reads by indexes alone', async () => {
    const deps = await openTestDeps('sqlite');
    const a = await newMachine(deps, 'a');
    const token = await mint(deps, a);
    const lists = createStatusLists();
    const statements = await statementsOf(deps, async () => {
      await lists.find(deps, idOf(token.uri));
      await revokeM2mToken(deps, admin, { id: token.id });
      deps.clock.now += SECOND;
      await lists.find(deps, idOf(token.uri));
    });
    const plans = statements.map((text) => planOf(deps, text));
    expect(statements.filter((text) => text.includes('"m2m_tokens"'))).toHaveLength(2);
    // The head of the log is one row.
    for (const step of plans.flat()) expect(step).toMatch(/^SEARCH|^SCAN event_head$/);
    expect(plans.flat()).toContainEqual(
      expect.stringMatching(/events USING .*events_type \(type=\? AND seq>\?\)/),
    );
    expect(plans.flat()).toContainEqual(
      expect.stringMatching(
        /m2m_tokens_status \(status_list_id=\? AND status_index>\? AND status_index<\?\)/,
      ),
    );
  });
});
