import { eq } from 'drizzle-orm';
import { CompactSign, exportJWK, generateKeyPair, UnsecuredJWT } from 'jose';
import { expect, it } from 'vitest';
import { authorize } from '../../../server/authenticate.ts';
import { formatValue } from '../../../server/crypto/format.ts';
import { hexId } from '../../../server/crypto/ids.ts';
import type { Deps } from '../../../server/deps.ts';
import { type Authorize, verify, verifyBatch, verifyInput } from '../../../server/domain/credentials.ts';
import {
  deleteOauthApplication,
  revokeOauthApplicationTokens,
  setOauthApplicationEnabled,
} from '../../../server/domain/oauth-applications.ts';
import {
  revokeAllOauthGrants,
  revokeOauthGrant,
  withdrawOauthConsent,
} from '../../../server/domain/oauth-grants.ts';
import { revokeOauthToken } from '../../../server/domain/oauth-tokens.ts';
import { emergencyRetireSigningKey } from '../../../server/domain/signing-keys.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';
import { newAccessToken, newApplication, newGrant } from '../../support/oauth-tokens.ts';
import { newUser } from '../../support/users.ts';

const admin = callerWith('admin');
const asVerifier: Authorize = (principal) => authorize(principal, 'credentials.verify', true);

const ask = (
  deps: Deps,
  callerValue: string | null,
  credential: string,
  rest: Record<string, unknown> = {},
) => verify(deps, presented(callerValue), verifyInput.parse({ credential, ...rest }), asVerifier);

const FORMATS = ['opaque', 'jwt'] as const;
const API = 'https://api.example.com/notes';

const setUserEnabled = (deps: TestDeps, id: string, enabled: boolean) =>
  deps.store.tx(({ db, tables: { users } }) => db.update(users).set({ enabled }).where(eq(users.id, id)));

describeOnEachDialect('OAuth access tokens', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const user = (await newUser(deps)).id;
    const { row: application } = await newApplication(deps);
    const grant = await newGrant(deps, application, { subject: user, resources: [API] });
    return { deps, user, application, grant };
  }

  it.each(FORMATS)('verify() answers whose %s token it is, and what it may do', async (format) => {
    const { deps, application, user } = await setup();
    const grant = await newGrant(deps, application, { subject: user, organizationId: 'org_7' });
    const { id, value, expiresAt } = await newAccessToken(deps, application, {
      format,
      grant,
      resources: [API],
      scopes: ['notes:read', 'notes:write'],
    });
    const valid = {
      valid: true,
      kind: 'oauth_token',
      id,
      subject: user,
      clientId: application.client_id,
      applicationId: application.id,
      applicationName: 'Notes',
      grantId: grant.id,
      organizationId: 'org_7',
      scopes: ['notes:read', 'notes:write'],
      audience: [API],
      claims: null,
      expiresAt,
    };
    expect(await ask(deps, deps.adminKey, value, { resource: API })).toEqual(valid);
    const question = { resource: API, scopes: ['notes:read'], kinds: ['oauth_token'] };
    expect(await ask(deps, deps.adminKey, value, question)).toEqual(valid);
  });

  it.each(FORMATS)('verify() answers of a %s token that an application got for itself', async (format) => {
    const { deps, application } = await setup();
    const { id, value, expiresAt } = await newAccessToken(deps, application, { format });
    expect(await ask(deps, deps.adminKey, value, { resource: API })).toEqual({
      valid: true,
      kind: 'oauth_token',
      id,
      subject: application.client_id,
      clientId: application.client_id,
      applicationId: application.id,
      applicationName: 'Notes',
      scopes: ['notes:read'],
      claims: null,
      expiresAt,
    });
  });

  it.each(FORMATS)('verify() refuses a %s token for each reason in turn', async (format) => {
    const { deps, application, user, grant } = await setup();
    const token = await newAccessToken(deps, application, { format, grant, resources: [API] });
    const { id, value, expiresAt } = token;
    const told = (reason: string) => ({ valid: false, reason, id, subject: user });
    const by = (rest: Record<string, unknown> = { resource: API }) => ask(deps, deps.adminKey, value, rest);
    expect(await by({ kinds: ['api_key', 'm2m_token'] })).toEqual({ valid: false, reason: 'wrong_kind' });
    expect(await by({})).toEqual(told('audience_required'));
    expect(await by({ resource: 'https://other.example.com/' })).toEqual(told('wrong_audience'));
    expect(await by({ resource: API, scopes: ['notes:read', 'x'] })).toEqual(told('insufficient_scope'));

    deps.clock.now = expiresAt;
    expect(await by({ resource: API, scopes: ['x'] })).toEqual(told('expired'));
    await setOauthApplicationEnabled(deps, admin, application.id, false);
    expect(await by()).toEqual(told('disabled'));
    await revokeOauthToken(deps, admin, { id });
    expect(await by()).toEqual(told('revoked'));
    expect(await by({ resource: 'https://other.example.com/' })).toEqual(told('wrong_audience'));
    await deleteOauthApplication(deps, admin, { id: application.id });
    expect(await by()).toEqual({ valid: false, reason: 'unknown' });
  });

  it.each(FORMATS)('verify() answers expired of a %s token at the instant of expiry', async (format) => {
    const { deps, application } = await setup();
    const { value, expiresAt } = await newAccessToken(deps, application, { format });
    deps.clock.now = expiresAt - 1;
    expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: true });
    deps.clock.now = expiresAt;
    expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: false, reason: 'expired' });
  });

  const ENDINGS: [string, (world: Awaited<ReturnType<typeof setup>>) => Promise<unknown>][] = [
    ['its grant was revoked', ({ deps, grant }) => revokeOauthGrant(deps, admin, { id: grant.id })],
    [
      'its user withdrew their consent',
      ({ deps, user, application }) =>
        withdrawOauthConsent(deps, admin, { subject: user, applicationId: application.id }),
    ],
    [
      'all of its user were revoked',
      ({ deps, user }) => revokeAllOauthGrants(deps, admin, { subject: user }),
    ],
    [
      'all of its application were revoked',
      ({ deps, application }) => revokeOauthApplicationTokens(deps, admin, { id: application.id }),
    ],
    [
      'its grant is gone',
      ({ deps, grant }) =>
        deps.store.tx(({ db, tables: { oauthGrants: g } }) => db.delete(g).where(eq(g.id, grant.id))),
    ],
  ];

  for (const format of FORMATS)
    it.each(ENDINGS)(`verify() answers revoked of a token (${format}) once %s`, async (_, end) => {
      const world = await setup();
      const { deps, application, grant } = world;
      const { value } = await newAccessToken(deps, application, { format, grant });
      expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: true });
      await end(world);
      expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: false, reason: 'revoked' });
    });

  it.each(FORMATS)(
    'verify() lets a %s token be that was issued after all of before were revoked',
    async (format) => {
      const { deps, application } = await setup();
      await revokeOauthApplicationTokens(deps, admin, { id: application.id });
      const { row } = { row: { ...application, token_generation: application.token_generation + 1 } };
      const { value } = await newAccessToken(deps, row, { format });
      expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: true });
    },
  );

  it.each(FORMATS)(
    'verify() answers disabled of a %s token while its user is, here or as a subject',
    async (format) => {
      const { deps, application, grant, user } = await setup();
      const { value } = await newAccessToken(deps, application, { format, grant });
      const outcome = async () => {
        const answer = await ask(deps, deps.adminKey, value);
        return answer.valid ? 'valid' : answer.reason;
      };
      await setUserEnabled(deps, user, false);
      expect(await outcome()).toBe('disabled');
      await setUserEnabled(deps, user, true);
      expect(await outcome()).toBe('valid');
      await setSubjectEnabled(deps, admin, { id: user }, false);
      expect(await outcome()).toBe('disabled');
      await setSubjectEnabled(deps, admin, { id: user }, true);
      await setOauthApplicationEnabled(deps, admin, application.id, false);
      expect(await outcome()).toBe('disabled');
      await setOauthApplicationEnabled(deps, admin, application.id, true);
      expect(await outcome()).toBe('valid');
    },
  );

  it('verify() answers revoked of JWTs alone whose key was retired in an emergency', async () => {
    const { deps, application } = await setup();
    const jwt = await newAccessToken(deps, application, { format: 'jwt' });
    const opaque = await newAccessToken(deps, application);
    await emergencyRetireSigningKey(deps, admin, { kid: (await deps.signer.active()).kid });
    expect(await ask(deps, deps.adminKey, jwt.value)).toMatchObject({ valid: false, reason: 'revoked' });
    expect(await ask(deps, deps.adminKey, opaque.value)).toMatchObject({ valid: true });
  });

  it('verify() takes a token for one of its resources, spelt with a slash or without, and for no other', async () => {
    const { deps, application } = await setup();
    const resources = ['https://api.example.com', 'https://b.example.com/mcp'];
    const { value } = await newAccessToken(deps, application, { resources });
    const isFor = async (resource: string) => (await ask(deps, deps.adminKey, value, { resource })).valid;
    for (const same of ['https://api.example.com', 'https://api.example.com/', 'https://API.example.com:443'])
      expect([same, await isFor(same)]).toEqual([same, true]);
    for (const other of [
      'http://api.example.com',
      'https://api.example.com/x',
      'https://api.example.com.evil.example/',
      'https://api.example.com:8443',
      'https://b.example.com/mcp/',
      'https://b.example.com/MCP',
      'https://b.example.com/mcp?x=1',
    ])
      expect([other, await isFor(other)]).toEqual([other, false]);
  });

  it('verify() tells a machine of access tokens only if an admin let it, and looks none up else', async () => {
    const { deps, application } = await setup();
    const { id, value } = await newAccessToken(deps, application, { resources: [API] });
    const service = await newMachine(deps, 'service');
    const auditor = await newMachine(deps, 'auditor', { mayVerify: true });
    const wrongKind = { valid: false, reason: 'wrong_kind' };
    expect(await ask(deps, service.secret, value, { resource: API })).toEqual(wrongKind);
    await deps.usage.flush(deps.store);
    const { oauthTokens: t } = deps.store.read.tables;
    const [row] = await deps.store.read.db.select().from(t).where(eq(t.id, id));
    expect(row?.last_used_at).toBeNull();
    expect(await ask(deps, auditor.secret, value, { resource: API })).toMatchObject({ valid: true });
    const elsewhere = { resource: 'https://other.example.com/' };
    expect(await ask(deps, auditor.secret, value, elsewhere)).toEqual({ valid: false, reason: 'unknown' });
  });

  it('verify() notes the last use of a token, and counts its application', async () => {
    const { deps, application } = await setup();
    const { id, value } = await newAccessToken(deps, application);
    await ask(deps, deps.adminKey, value);
    await ask(deps, deps.adminKey, value, { scopes: ['x'] });
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    const [token] = await db.select().from(tables.oauthTokens).where(eq(tables.oauthTokens.id, id));
    expect(token?.last_used_at).toBe(deps.clock.now);
    const [used] = await db.select().from(tables.oauthApplications);
    expect(used?.last_used_at).toBe(deps.clock.now);
    const counted = await db.select().from(tables.usage);
    expect(counted.filter(({ credential_id }) => credential_id === id)).toEqual([]);
    expect(counted.filter(({ credential_id }) => credential_id === application.id)).toMatchObject([
      { valid_count: 1, refused_count: 1 },
    ]);
  });

  it('verify() refuses callers before it says anything of an access token', async () => {
    const { deps, application } = await setup();
    const { value } = await newAccessToken(deps, application);
    for (const caller of [null, 'x', value, formatValue('sk_', Buffer.alloc(32))])
      await expect(ask(deps, caller, value)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('verify() refuses access tokens as JWTs that it did not sign itself', async () => {
    const { deps, application } = await setup();
    const { value } = await newAccessToken(deps, application, { format: 'jwt' });
    const [header = '', payload = '', signature = ''] = value.split('.');
    const forger = await generateKeyPair('ES256', { extractable: true });
    const { kid } = await deps.signer.active();
    const own = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
    const encoded = Buffer.from(JSON.stringify(own));
    const forge = (protectedHeader: Record<string, unknown>) =>
      new CompactSign(encoded)
        .setProtectedHeader({ alg: 'ES256', kid, typ: 'at+jwt', ...protectedHeader })
        .sign(forger.privateKey);
    const hmacKey = new TextEncoder().encode(JSON.stringify(await deps.signer.jwks()));
    const altered = Buffer.from(JSON.stringify({ ...own, scope: 'notes:write' })).toString('base64url');
    const none = Buffer.from(JSON.stringify({ alg: 'none', typ: 'at+jwt' })).toString('base64url');
    const attempts: [string, string][] = [
      ['signed by another key', await forge({})],
      ['with its own key in the header', await forge({ jwk: await exportJWK(forger.publicKey) })],
      ['with a key elsewhere', await forge({ jku: 'https://evil.example/jwks.json' })],
      ['with a kid that is none of ours', await forge({ kid: 'other' })],
      [
        'with alg HS256 over the public keys',
        await new CompactSign(encoded)
          .setProtectedHeader({ alg: 'HS256', kid, typ: 'at+jwt' })
          .sign(hmacKey as never),
      ],
      ['with alg none', new UnsecuredJWT(own).encode()],
      ['with alg none and its signature', `${none}.${payload}.${signature}`],
      ['with another payload', `${header}.${altered}.${signature}`],
      ['with an empty signature', `${header}.${payload}.`],
    ];
    for (const [how, forged] of attempts) {
      const outcome = await ask(deps, deps.adminKey, forged);
      expect({ how, valid: outcome.valid }).toEqual({ how, valid: false });
      expect(['unknown', 'malformed']).toContain(outcome.valid ? '' : outcome.reason);
    }
    expect(await ask(deps, deps.adminKey, value)).toMatchObject({ valid: true });
  });

  it('verify() refuses as an access token what our key signed for another purpose, issuer or user', async () => {
    const { deps, application, grant } = await setup();
    const { value } = await newAccessToken(deps, application, { format: 'jwt', grant });
    const own = JSON.parse(Buffer.from(value.split('.')[1] ?? '', 'base64url').toString()) as object;
    const key = await deps.signer.active();
    const signed = (header: Record<string, string | undefined>, payload: Record<string, unknown>) =>
      key.sign({ typ: 'at+jwt', ...header }, JSON.stringify({ ...own, ...payload }));
    expect(await ask(deps, deps.adminKey, await signed({}, {}))).toMatchObject({ valid: true });
    for (const [header, payload] of [
      [{ typ: 'JWT', cat: 'countersign_id' }, {}],
      [{ typ: 'JWT', cat: 'cl_B7d4PD333AAA' }, {}],
      [{ typ: 'application/at+jwt' }, {}],
      [{ typ: undefined }, {}],
      [{}, { iss: 'https://other.example' }],
      [{}, { sub: 'user_2' }],
      [{}, { jti: hexId('oat_', deps.clock.now) }],
      [{}, { jti: undefined }],
    ] as const) {
      const outcome = await ask(deps, deps.adminKey, await signed(header, payload));
      expect({ header, payload, outcome }).toEqual({
        header,
        payload,
        outcome: { valid: false, reason: 'unknown' },
      });
    }
  });

  it('verify() does not take an opaque access token by its id in a JWT', async () => {
    const { deps, application } = await setup();
    const { id } = await newAccessToken(deps, application);
    const key = await deps.signer.active();
    const claims = { iss: deps.publicUrl, sub: application.client_id, jti: id, exp: 9e9 };
    const jwt = await key.sign({ typ: 'at+jwt' }, JSON.stringify(claims));
    expect(await ask(deps, deps.adminKey, jwt)).toEqual({ valid: false, reason: 'unknown' });
  });

  it('verifyBatch() answers of access tokens in order, each as verify() would', async () => {
    const { deps, application, grant } = await setup();
    const live = await newAccessToken(deps, application, { grant, resources: [API] });
    const jwt = await newAccessToken(deps, application, { format: 'jwt' });
    const revoked = await newAccessToken(deps, application);
    await revokeOauthToken(deps, admin, { id: revoked.id });
    const items = [
      { credential: live.value, resource: API },
      { credential: jwt.value },
      { credential: live.value },
      { credential: revoked.value },
      { credential: `${jwt.value}x` },
    ].map((item) => verifyInput.parse(item));
    const answers = await verifyBatch(deps, presented(deps.adminKey), { items }, asVerifier);
    expect(answers.map((answer) => (answer.valid ? answer.id : answer.reason))).toEqual([
      live.id,
      jwt.id,
      'audience_required',
      'revoked',
      'unknown',
    ]);
  });

  it.each(FORMATS)(
    'no verification of a %s token that begins after revoke has returned answers valid',
    async (format) => {
      const { deps, application, grant, user } = await setup();
      const revocations = [
        ({ id }: { id: string }) => revokeOauthToken(deps, admin, { id }),
        () => revokeOauthGrant(deps, admin, { id: grant.id }),
        () => withdrawOauthConsent(deps, admin, { subject: user, applicationId: application.id }),
        () => revokeAllOauthGrants(deps, admin, { subject: user }),
        () => revokeOauthApplicationTokens(deps, admin, { id: application.id }),
        () => setOauthApplicationEnabled(deps, admin, application.id, false),
        () => deleteOauthApplication(deps, admin, { id: application.id }),
      ];
      for (const revoke of revocations) {
        const own = await newGrant(deps, application, { subject: user });
        const token = await newAccessToken(deps, application, {
          format,
          grant: revoke === revocations[1] ? grant : own,
        });
        let hasReturned = false;
        const late: boolean[] = [];
        const verifying = Array.from({ length: 8 }, async () => {
          for (let n = 0; n < 20; n++) {
            const isLate = hasReturned;
            const { valid } = await ask(deps, deps.adminKey, token.value);
            if (isLate) late.push(valid);
          }
        });
        await revoke(token);
        hasReturned = true;
        await Promise.all(verifying);
        late.push((await ask(deps, deps.adminKey, token.value)).valid);
        expect(late).not.toContain(true);
      }
    },
  );
});
