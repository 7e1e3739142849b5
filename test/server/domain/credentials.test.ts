import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { base64url, CompactSign, exportJWK, generateKeyPair, UnsecuredJWT } from 'jose';
import { expect, it } from 'vitest';
import { authorize } from '../../../server/authenticate.ts';
import { formatValue, PREFIXES } from '../../../server/crypto/format.ts';
import { hexId } from '../../../server/crypto/ids.ts';
import { signM2mJwt } from '../../../server/crypto/jwt.ts';
import type { Deps } from '../../../server/deps.ts';
import {
  type Authorize,
  VERIFY_REASONS,
  verify,
  verifyBatch,
  verifyBatchInput,
  verifyInput,
} from '../../../server/domain/credentials.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  revokeAllM2mTokens,
  revokeM2mToken,
} from '../../../server/domain/m2m-tokens.ts';
import { deleteMachine, setMachineEnabled } from '../../../server/domain/machines.ts';
import { issueSecret } from '../../../server/domain/secrets.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { allow, forbid, newMachine, type TestMachine } from '../../support/machines.ts';

const admin = callerWith('admin');
const asVerifier: Authorize = (principal) => authorize(principal, 'credentials.verify', true);

const ask = (
  deps: Deps,
  callerValue: string | null,
  credential: string,
  rest: Record<string, unknown> = {},
) => verify(deps, presented(callerValue), verifyInput.parse({ credential, ...rest }), asVerifier);

async function mint(deps: TestDeps, machine: TestMachine, input: Record<string, unknown> = {}) {
  const { token = '', ...rest } = await createM2mToken(
    deps,
    machine.caller,
    createM2mTokenInput.parse(input),
  );
  return { ...rest, value: token };
}

interface KeyOptions {
  enabled?: boolean;
  expires_at?: number | null;
  revoked_at?: number | null;
  secretExpiresAt?: number | null;
}

/** An API key of user_1, whose rows are as the test wants them. */
async function newKey(deps: TestDeps, { secretExpiresAt, ...columns }: KeyOptions = {}) {
  const id = hexId('ak_', deps.clock.now);
  const value = await deps.store.tx(async (tx) => {
    await tx.db.insert(tx.tables.apiKeys).values({
      id,
      subject: 'user_1',
      name: 'export',
      scopes: ['read', 'write'],
      claims: { plan: 'pro' },
      enabled: true,
      created_at: deps.clock.now,
      updated_at: deps.clock.now,
      ...columns,
    });
    const owner = { kind: 'api_key' as const, id };
    const terms = { rotation_period_seconds: null, expires_at: null };
    const secret = await issueSecret(tx, deps, { owner, prefix: PREFIXES.apiKey, terms });
    const { secrets } = tx.tables;
    await tx.db
      .update(secrets)
      .set({ expires_at: secretExpiresAt ?? null })
      .where(eq(secrets.owner_id, id));
    return secret;
  });
  return { id, value };
}

/** Deps that fail the test if a credential is looked up: only the caller's own value may be hashed. */
function refusingLookups(deps: TestDeps): TestDeps {
  const hash = (value: string) => {
    if (value !== deps.adminKey) throw new Error('The credential was looked up');
    return deps.keyring.hash(value);
  };
  const find = () => Promise.reject(new Error('A signing key was looked up'));
  return { ...deps, keyring: { ...deps.keyring, hash }, signer: { ...deps.signer, find } };
}

describeOnEachDialect('credentials', (dialect) => {
  /** `a` may call `b` with `read` and `write`; `stranger` may call and be called by nobody. */
  async function setup() {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const b = await newMachine(deps, 'b');
    const stranger = await newMachine(deps, 'stranger');
    await allow(deps, a.id, b.id, ['read', 'write']);
    return { deps, a, b, stranger };
  }

  it.each(['opaque', 'jwt'])(
    'verify() answers whose %s token it is and what it may do, to its audience',
    async (format) => {
      const { deps, a, b } = await setup();
      const { id, value, expiresAt } = await mint(deps, a, { format, claims: { tenant: 't1' } });
      const valid = {
        valid: true,
        kind: 'm2m_token',
        id,
        subject: a.id,
        machineId: a.id,
        audience: [b.id],
        scopes: ['read', 'write'],
        claims: { tenant: 't1' },
        expiresAt,
      };
      expect(await ask(deps, b.secret, value)).toEqual(valid);
      expect(
        await ask(deps, b.secret, value, { audience: b.id, scopes: ['read'], kinds: ['m2m_token'] }),
      ).toEqual(valid);
      expect(await ask(deps, deps.adminKey, value, { audience: b.id })).toEqual(valid);
    },
  );

  it('verify() answers whose API key it is', async () => {
    const { deps } = await setup();
    const { id, value } = await newKey(deps, {
      expires_at: deps.clock.now + 9,
      secretExpiresAt: deps.clock.now + 5,
    });
    expect(await ask(deps, deps.adminKey, value, { ip: '203.0.113.9', scopes: ['read'] })).toEqual({
      valid: true,
      kind: 'api_key',
      id,
      subject: 'user_1',
      name: 'export',
      scopes: ['read', 'write'],
      claims: { plan: 'pro' },
      expiresAt: deps.clock.now + 5,
    });
  });

  it.each(['opaque', 'jwt'])('verify() refuses a %s token for each reason in turn', async (format) => {
    const { deps, a, b, stranger } = await setup();
    const { id, value, expiresAt } = await mint(deps, a, { format });
    const told = (reason: string) => ({ valid: false, reason, id, subject: a.id });
    const byAdmin = (rest: Record<string, unknown> = { audience: b.id }) =>
      ask(deps, deps.adminKey, value, rest);
    expect(await byAdmin({})).toEqual(told('audience_required'));
    expect(await byAdmin({ audience: stranger.id })).toEqual(told('wrong_audience'));
    expect(await byAdmin({ audience: b.id, scopes: ['read', 'x'] })).toEqual(told('insufficient_scope'));
    expect(await byAdmin({ kinds: ['api_key', 'oauth_token'] })).toEqual({
      valid: false,
      reason: 'wrong_kind',
    });

    deps.clock.now = expiresAt;
    expect(await byAdmin({ audience: b.id, scopes: ['x'] })).toEqual(told('expired'));
    await setMachineEnabled(deps, admin, a.id, false);
    expect(await byAdmin()).toEqual(told('disabled'));
    await revokeM2mToken(deps, admin, { id });
    expect(await byAdmin()).toEqual(told('revoked'));
    await forbid(deps, a.id, b.id);
    expect(await byAdmin()).toEqual(told('wrong_audience'));
    expect(await byAdmin({})).toEqual(told('audience_required'));
    await deleteMachine(deps, admin, a.id);
    expect(await byAdmin({})).toEqual({ valid: false, reason: 'unknown' });
  });

  it('verify() refuses an API key for each reason in turn', async () => {
    const { deps } = await setup();
    const { now } = deps.clock;
    const told = async (options: KeyOptions, rest: Record<string, unknown> = {}) => {
      const { id, value } = await newKey(deps, options);
      const { id: toldId, ...outcome } = { id: undefined, ...(await ask(deps, deps.adminKey, value, rest)) };
      expect(toldId).toBe(id);
      return outcome;
    };
    const subject = 'user_1';
    const later = { expires_at: now };
    expect(await told({}, { scopes: ['x'] })).toEqual({
      valid: false,
      reason: 'insufficient_scope',
      subject,
    });
    expect(await told(later, { scopes: ['x'] })).toEqual({ valid: false, reason: 'expired', subject });
    expect(await told({ secretExpiresAt: now })).toEqual({ valid: false, reason: 'expired', subject });
    expect(await told({ ...later, enabled: false })).toEqual({ valid: false, reason: 'disabled', subject });
    expect(await told({ ...later, enabled: false, revoked_at: 1 })).toEqual({
      valid: false,
      reason: 'revoked',
      subject,
    });
  });

  it('verify() refuses an API key whose secret was revoked, and one whose key was deleted', async () => {
    const { deps } = await setup();
    const { id, value } = await newKey(deps);
    const { secrets, apiKeys } = deps.store.read.tables;
    const other = await newKey(deps);
    await deps.store.tx(({ db }) => db.delete(apiKeys));
    expect(await ask(deps, deps.adminKey, other.value)).toEqual({ valid: false, reason: 'unknown' });
    await deps.store.tx(({ db }) =>
      db.insert(apiKeys).values({
        id,
        subject: 'user_1',
        name: 'x',
        scopes: [],
        enabled: true,
        created_at: 1,
        updated_at: 1,
      }),
    );
    expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: true });
    await deps.store.tx(({ db }) =>
      db.update(secrets).set({ revoked_at: 1 }).where(eq(secrets.owner_id, id)),
    );
    expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: false, reason: 'revoked' });
  });

  it('verify() answers expired at the instant of expiry and valid a millisecond before', async () => {
    const { deps, a, b } = await setup();
    for (const format of ['opaque', 'jwt']) {
      const { value, expiresAt } = await mint(deps, a, { format });
      deps.clock.now = expiresAt - 1;
      expect(await ask(deps, b.secret, value)).toMatchObject({ valid: true });
      deps.clock.now = expiresAt;
      expect(await ask(deps, b.secret, value)).toMatchObject({ valid: false, reason: 'expired' });
    }
  });

  it('verify() judges a machine scope as it is now: narrowed, taken back and given again', async () => {
    const { deps, a, b } = await setup();
    const { value } = await mint(deps, a);
    await forbid(deps, a.id, b.id);
    expect(await ask(deps, b.secret, value)).toEqual({ valid: false, reason: 'unknown' });
    await allow(deps, a.id, b.id, ['read', 'extra']);
    expect(await ask(deps, b.secret, value)).toMatchObject({ valid: true, scopes: ['read'] });
    expect(await ask(deps, b.secret, value, { scopes: ['write'] })).toMatchObject({
      reason: 'insufficient_scope',
    });
  });

  it('verify() tells a machine nothing of tokens that are not for it', async () => {
    const { deps, a, b, stranger } = await setup();
    const { value } = await mint(deps, a);
    const unknown = { valid: false, reason: 'unknown' };
    expect(await ask(deps, stranger.secret, value)).toEqual(unknown);
    expect(await ask(deps, a.secret, value)).toEqual(unknown);
    expect(await ask(deps, b.secret, value, { audience: stranger.id })).toEqual(unknown);
    await allow(deps, a.id, stranger.id);
    expect(await ask(deps, stranger.secret, value)).toEqual(unknown);
  });

  it('verify() tells a machine of API keys only if an admin let it', async () => {
    const { deps, b } = await setup();
    const auditor = await newMachine(deps, 'auditor', { mayVerify: true });
    const { id, value } = await newKey(deps);
    expect(await ask(deps, b.secret, value)).toEqual({ valid: false, reason: 'wrong_kind' });
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    expect((await db.select().from(tables.usage)).map((row) => row.credential_id)).not.toContain(id);
    expect(await ask(deps, b.secret, formatValue('oat_', Buffer.alloc(32)))).toEqual({
      valid: false,
      reason: 'wrong_kind',
    });
    expect(await ask(deps, auditor.secret, value)).toMatchObject({ valid: true });
  });

  it.each(['opaque', 'jwt'])(
    'verify() refuses a %s token after all of its machine were revoked',
    async (format) => {
      const { deps, a, b } = await setup();
      const { value } = await mint(deps, a, { format });
      await revokeAllM2mTokens(deps, admin, { machineId: a.id });
      expect(await ask(deps, b.secret, value)).toMatchObject({ valid: false, reason: 'revoked' });
      expect(await ask(deps, b.secret, (await mint(deps, a, { format })).value)).toMatchObject({
        valid: true,
      });
    },
  );

  it('verify() refuses callers before it says anything of the credential', async () => {
    const { deps, a, b } = await setup();
    const { value } = await mint(deps, a);
    const { value: key } = await newKey(deps);
    for (const caller of [
      null,
      'x',
      value,
      key,
      formatValue('msk_', Buffer.alloc(32)),
      formatValue('sk_', Buffer.alloc(32)),
    ]) {
      for (const credential of [value, key, 'garbage', deps.adminKey]) {
        await expect(ask(deps, caller, credential)).rejects.toMatchObject({ code: 'unauthenticated' });
      }
    }
    await setMachineEnabled(deps, admin, b.id, false);
    await expect(ask(deps, b.secret, value)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('verify() never verifies or looks up credentials of callers', async () => {
    const { deps, a } = await setup();
    const refusing = refusingLookups(deps);
    for (const value of [
      deps.adminKey,
      a.secret,
      `sk_${'a_'.repeat(30)}`,
      formatValue('ort_', Buffer.alloc(32, 3)),
    ]) {
      expect(await ask(refusing, deps.adminKey, value)).toEqual({ valid: false, reason: 'wrong_kind' });
    }
  });

  it('verify() answers unknown for what was never issued', async () => {
    const { deps } = await setup();
    for (const prefix of ['mt_', 'ak_', 'oat_']) {
      expect(await ask(deps, deps.adminKey, formatValue(prefix, Buffer.alloc(32, 9)))).toEqual({
        valid: false,
        reason: 'unknown',
      });
    }
  });

  it('verify() refuses JWTs that it did not sign itself', async () => {
    const { deps, a, b } = await setup();
    const { value, id } = await mint(deps, a, { format: 'jwt' });
    const [header = '', payload = '', signature = ''] = value.split('.');
    const forger = await generateKeyPair('ES256', { extractable: true });
    const { kid } = await deps.signer.active();
    const own = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
    const encoded = Buffer.from(JSON.stringify(own));
    const forge = (protectedHeader: Record<string, unknown>, key = forger.privateKey) =>
      new CompactSign(encoded)
        .setProtectedHeader({ alg: 'ES256', kid, typ: 'JWT', cat: 'cl_B7d4PD333AAA', ...protectedHeader })
        .sign(key);
    const secret = new TextEncoder().encode(JSON.stringify(await deps.signer.jwks()));
    const unsigned = new UnsecuredJWT(own).encode();
    const attempts: [string, string][] = [
      ['signed by another key', await forge({})],
      ['with its own key in the header', await forge({ jwk: await exportJWK(forger.publicKey) })],
      [
        'with a key elsewhere',
        await forge({ jku: 'https://evil.example/jwks.json', x5u: 'https://evil.example' }),
      ],
      ['with a kid that is none of ours', await forge({ kid: 'other' })],
      ['without a kid', await forge({ kid: undefined })],
      [
        'with alg HS256 over the public key',
        await new CompactSign(encoded)
          .setProtectedHeader({ alg: 'HS256', kid, typ: 'JWT' })
          .sign(secret as never),
      ],
      ['with alg none', unsigned],
      ['with alg none and a signature', `${unsigned.split('.')[0]}.${payload}.${signature}`],
      [
        'with another payload',
        `${header}.${base64url.encode(JSON.stringify({ ...own, sub: b.id }))}.${signature}`,
      ],
      ['with an empty signature', `${header}.${payload}.`],
      ['with its signature cut', value.slice(0, -1)],
      ['with its signature spelt otherwise', respelt(value)],
    ];
    for (const [how, forged] of attempts) {
      const outcome = await ask(deps, b.secret, forged);
      expect({ how, valid: outcome.valid }).toEqual({ how, valid: false });
      expect(['unknown', 'malformed']).toContain(outcome.valid ? '' : outcome.reason);
    }
    expect(await ask(deps, b.secret, value)).toMatchObject({ valid: true, id });
  });

  it('verify() refuses what our key signed for another purpose, issuer or machine', async () => {
    const { deps, a, b } = await setup();
    const { value } = await mint(deps, a, { format: 'jwt' });
    const own = JSON.parse(Buffer.from(value.split('.')[1] ?? '', 'base64url').toString()) as Record<
      string,
      unknown
    >;
    const key = await deps.signer.active();
    const signed = (header: Record<string, string | undefined>, payload: Record<string, unknown>) =>
      key.sign({ typ: 'JWT', cat: 'cl_B7d4PD333AAA', ...header }, JSON.stringify({ ...own, ...payload }));
    expect(await ask(deps, b.secret, await signed({}, {}))).toMatchObject({ valid: true });
    for (const [header, payload] of [
      [{ cat: 'countersign_id' }, {}],
      [{ cat: undefined }, {}],
      [{ typ: 'at+jwt' }, {}],
      [{ typ: undefined }, {}],
      [{}, { iss: 'https://other.example' }],
      [{}, { sub: b.id }],
      [{}, { jti: hexId('mt_', deps.clock.now) }],
      [{}, { jti: undefined }],
    ] as const) {
      const outcome = await ask(deps, b.secret, await signed(header, payload));
      expect(outcome).toEqual({ valid: false, reason: header.typ === 'at+jwt' ? 'wrong_kind' : 'unknown' });
    }
  });

  it('verify() does not take an opaque token by its id in a JWT', async () => {
    const { deps, a, b } = await setup();
    const { id } = await mint(deps, a);
    const claims = { iss: deps.publicUrl, sub: a.id, jti: id, exp: 9e9 };
    const jwt = await signM2mJwt(await deps.signer.active(), JSON.stringify(claims));
    expect(await ask(deps, b.secret, jwt)).toEqual({ valid: false, reason: 'unknown' });
  });

  it('verifyBatch() answers in order, each as verify() would', async () => {
    const { deps, a, b } = await setup();
    const [token, jwt, key] = [
      await mint(deps, a),
      await mint(deps, a, { format: 'jwt' }),
      await newKey(deps),
    ];
    const items = [token.value, 'garbage', jwt.value, key.value].map((credential) => ({
      credential,
      audience: b.id,
    }));
    const outcomes = await verifyBatch(
      deps,
      presented(deps.adminKey),
      verifyBatchInput.parse({ items }),
      asVerifier,
    );
    expect(outcomes.map((outcome) => (outcome.valid ? outcome.id : outcome.reason))).toEqual([
      token.id,
      'malformed',
      jwt.id,
      key.id,
    ]);
    await expect(verifyBatch(deps, presented(null), { items }, asVerifier)).rejects.toMatchObject({
      code: 'unauthenticated',
    });
    expect(verifyBatchInput.safeParse({ items: [] }).success).toBe(false);
    expect(
      verifyBatchInput.safeParse({ items: Array.from({ length: 101 }, () => ({ credential: 'x' })) }).success,
    ).toBe(false);
  });

  it('verify() writes to no row, counts every outcome, and leaves the rest to the flush', async () => {
    const outcomes: string[] = [];
    const { deps: quiet, a, b } = await setup();
    const deps = { ...quiet, observer: { verification: (outcome: string) => outcomes.push(outcome) } };
    const { id, value } = await mint(deps, a);
    const frozen = { ...deps, store: { ...deps.store, tx: () => Promise.reject(new Error('verify wrote')) } };
    await ask(frozen, b.secret, value);
    await ask(frozen, b.secret, value, { scopes: ['x'] });
    await ask(frozen, b.secret, 'garbage');
    expect(outcomes).toEqual(['valid', 'insufficient_scope', 'malformed']);
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    const counts = new Map((await db.select().from(tables.usage)).map((row) => [row.credential_id, row]));
    expect(counts.get(id)).toMatchObject({ valid_count: 1, refused_count: 1 });
    expect(counts.get(b.id)).toMatchObject({ valid_count: 3, refused_count: 0 });
  });
});

/** The same bytes of a signature, with the bits that the last character does not use set. */
function respelt(jwt: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return jwt.slice(0, -1) + alphabet[alphabet.indexOf(jwt.slice(-1)) + 1];
}

/** A value with one thing wrong: cut, lengthened, one character changed or in the other case, or another prefix. */
const wrongValues = (prefixes: string[]) =>
  fc
    .record({
      prefix: fc.constantFrom(...prefixes),
      bytes: fc.uint8Array({ minLength: 32, maxLength: 32 }),
      how: fc.constantFrom('cut', 'lengthened', 'changed', 're-cased', 're-prefixed', 'spaced'),
      at: fc.nat(48),
      by: fc.integer({ min: 1, max: 20 }),
    })
    .map(({ prefix, bytes, how, at, by }) => {
      const value = formatValue(prefix, bytes);
      const place = prefix.length + at;
      const character = value[place] ?? '';
      const put = (text: string) => value.slice(0, place) + text + value.slice(place + 1);
      const otherCase =
        character === character.toLowerCase() ? character.toUpperCase() : character.toLowerCase();
      const wrong = {
        cut: value.slice(0, -by),
        lengthened: value + value.slice(-by),
        changed: put(character === '0' ? '1' : '0'),
        're-cased': put(otherCase),
        're-prefixed': ['mt_', 'ak_', 'oat_'].find((other) => other !== prefix) + value.slice(prefix.length),
        spaced: `${value.slice(0, place)} ${value.slice(place)}`,
      }[how];
      return { right: value, wrong };
    })
    .filter(({ right, wrong }) => right !== wrong);

describeOnEachDialect('values by their format', (dialect) => {
  it('verify() refuses cut, lengthened, changed, re-cased and re-prefixed values before any lookup', async () => {
    const deps = refusingLookups(await openTestDeps(dialect));
    await fc.assert(
      fc.asyncProperty(wrongValues(['mt_', 'ak_', 'oat_']), async ({ wrong }) => {
        expect(await ask(deps, deps.adminKey, wrong)).toEqual({ valid: false, reason: 'malformed' });
      }),
      { numRuns: 500 },
    );
  });

  it('verify() refuses such values of callers, and text of any kind, before any I/O', async () => {
    const deps = await openTestDeps(dialect);
    const store = {
      ...deps.store,
      get read(): never {
        throw new Error('The database was read');
      },
    };
    const garbage = fc
      .string({ minLength: 1, maxLength: 200, unit: 'grapheme' })
      .filter((text) => !/^sk_\w{40,}$/.test(text));
    const callers = fc.oneof(
      wrongValues(['msk_']).map(({ wrong }) => wrong),
      garbage,
    );
    await fc.assert(
      fc.asyncProperty(callers, garbage, async (caller, credential) => {
        await expect(ask({ ...deps, store }, caller, credential)).rejects.toMatchObject({
          code: 'unauthenticated',
        });
      }),
      { numRuns: 500 },
    );
  });

  it('verify() answers malformed for text of any kind, without a lookup', async () => {
    const deps = refusingLookups(await openTestDeps(dialect));
    const text = fc.oneof(
      fc.string({ minLength: 1, maxLength: 300, unit: 'grapheme' }),
      fc.string({ maxLength: 60 }).map((rest) => `mt_${rest}`),
      fc.tuple(fc.base64String(), fc.base64String()).map(([a, b]) => `eyJ${a}.eyJ${b}.x`),
    );
    await fc.assert(
      fc.asyncProperty(text, async (credential) => {
        expect(await ask(deps, deps.adminKey, credential)).toMatchObject({
          valid: false,
          reason: 'malformed',
        });
      }),
      { numRuns: 500 },
    );
  });

  it('verify() never takes a JWT in which any character was changed', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await newMachine(deps, 'a'), await newMachine(deps, 'b')];
    await allow(deps, a.id, b.id);
    const { value } = await mint(deps, a, { format: 'jwt' });
    await fc.assert(
      fc.asyncProperty(fc.nat(value.length - 1), fc.constantFrom(...'Aa0_-.z9'), async (place, character) => {
        fc.pre(value[place] !== character);
        const changed = value.slice(0, place) + character + value.slice(place + 1);
        expect(await ask(deps, b.secret, changed)).toMatchObject({ valid: false });
      }),
      { numRuns: 300 },
    );
  });
});

it('the reasons of a refusal keep the order of precedence that the contract names', () => {
  expect(VERIFY_REASONS.join(' ')).toBe(
    'malformed wrong_kind unknown audience_required wrong_audience revoked disabled expired ip_not_allowed proof_required insufficient_scope rate_limited out_of_credits',
  );
});
