import { describe, expect, it } from 'vitest';
import { ACCESS, mayCall, type Who } from '../../server/access.ts';
import { newValue } from '../../server/crypto/hashing.ts';
import type { Principal, Role } from '../../server/deps.ts';
import { createApiKey, createApiKeyInput } from '../../server/domain/api-keys.ts';
import { createM2mToken, createM2mTokenInput } from '../../server/domain/m2m-tokens.ts';
import { deleteMachine, setMachineEnabled } from '../../server/domain/machines.ts';
import { createSecretKey, createSecretKeyInput, revokeSecretKey } from '../../server/domain/secret-keys.ts';
import { call, outcomeOf, PATHS } from '../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { allow, newMachine } from '../support/machines.ts';
import { newPanelToken } from '../support/panels.ts';

const admin = callerWith('admin');
const ROLES = ['admin', 'issuer', 'interaction', 'read', 'verify'] as const satisfies Role[];
const table: Record<string, readonly Who[]> = ACCESS;

const newSecretKey = (deps: TestDeps, role: Role, more: Record<string, unknown> = {}) =>
  createSecretKey(deps, admin, createSecretKeyInput.parse({ name: role, role, ...more }));

/** Everybody who may present themselves: their credential, and what the table calls them, or null for nobody. */
async function everybody(deps: TestDeps): Promise<[string, string | undefined, Who | null][]> {
  const people: [string, string | undefined, Who | null][] = [];
  for (const role of ROLES) people.push([`${role} key`, (await newSecretKey(deps, role)).secret, role]);
  const a = await newMachine(deps, 'machine');
  const b = await newMachine(deps, 'machine that may verify', { mayVerify: true });
  people.push([a.id, a.secret, 'machine'], [b.id, b.secret, 'machine']);
  people.push(['an end user', await newPanelToken(deps, 'user_access'), 'end_user']);
  return [...people, ...(await nobodies(deps))];
}

/** Credentials by which nobody is recognised, although some once were or are for something else. */
async function nobodies(deps: TestDeps): Promise<[string, string | undefined, null][]> {
  const disabled = await newMachine(deps, 'disabled machine');
  await setMachineEnabled(deps, admin, disabled.id, false);
  const deleted = await newMachine(deps, 'deleted machine');
  await deleteMachine(deps, admin, deleted.id);
  const revoked = await newSecretKey(deps, 'admin');
  await revokeSecretKey(deps, admin, { id: revoked.id });
  const expired = await newSecretKey(deps, 'admin', { ttlSeconds: 1 });
  deps.clock.now += 1000;
  const apiKey = await createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }));
  const from = await newMachine(deps, 'from');
  const to = await newMachine(deps, 'to');
  await allow(deps, from.id, to.id);
  const tokens = [];
  for (const format of ['opaque', 'jwt'])
    tokens.push(await createM2mToken(deps, from.caller, createM2mTokenInput.parse({ format })));
  return [
    ['no header', undefined, null],
    ['garbage', 'garbage', null],
    ['an unknown secret key', newValue('sk_').value, null],
    ['an unknown machine secret key', newValue('msk_').value, null],
    ['a disabled machine', disabled.secret, null],
    ['a deleted machine', deleted.secret, null],
    ['a revoked admin key', revoked.secret, null],
    ['an expired admin key', expired.secret, null],
    ['an API key', apiKey.secret, null],
    ['an opaque M2M token', tokens[0]?.token, null],
    ['a JWT M2M token', tokens[1]?.token, null],
    ['the id of an admin key', revoked.id, null],
  ];
}

const MACHINE_ID = `mch_${'0'.repeat(27)}`;
const API_KEY_ID = `ak_${'0'.repeat(32)}`;
const USER_ID = `user_${'0'.repeat(27)}`;
const SECRET_KEY_ID = `sk_${'0'.repeat(32)}`;
const KEY_POLICY_ID = `kp_${'0'.repeat(27)}`;
const TOKEN_ID = `mt_${'0'.repeat(32)}`;
const OAUTH_TOKEN_ID = `oat_${'0'.repeat(32)}`;
const SIGNING_KEY_ID = `key_${'0'.repeat(27)}`;
const APPLICATION_ID = `oauthapp_${'0'.repeat(27)}`;
const INITIAL_ACCESS_TOKEN_ID = `iat_${'0'.repeat(27)}`;
const GRANT_ID = `gnt_${'0'.repeat(27)}`;
const EDGE = { fromMachineId: MACHINE_ID, toMachineId: `mch_${'1'.repeat(27)}` };

/** An input for each that is parsed, so that the domain is reached; it names nothing that is there. */
const INPUTS: Record<string, unknown> = {
  'machines.create': { name: 'made by the test of access' },
  'machines.import': {
    id: `mch_${'9'.repeat(27)}`,
    name: 'imported by the test of access',
    hash: '9'.repeat(64),
    shape: { prefix: 'legacy_', length: 40 },
  },
  'machines.get': { id: MACHINE_ID },
  'machines.getOwn': {},
  'machines.list': {},
  'machines.update': { id: MACHINE_ID, name: 'renamed' },
  'machines.enable': { id: MACHINE_ID },
  'machines.disable': { id: MACHINE_ID },
  'machines.rotateSecret': { id: MACHINE_ID },
  'machines.rotateOwnSecret': {},
  'machines.cancelRotation': { id: MACHINE_ID },
  'machines.completeRotation': { id: MACHINE_ID },
  'machines.delete': { id: MACHINE_ID },
  'machineScopes.create': EDGE,
  'machineScopes.list': {},
  'machineScopes.update': { ...EDGE, scopes: [] },
  'machineScopes.delete': EDGE,
  'm2mTokens.create': {},
  'm2mTokens.get': { id: TOKEN_ID },
  'm2mTokens.list': { machineId: MACHINE_ID },
  'm2mTokens.revoke': { id: TOKEN_ID },
  'm2mTokens.revokeByValue': { value: 'garbage' },
  'm2mTokens.revokeAll': { machineId: MACHINE_ID },
  'oauthTokens.get': { id: OAUTH_TOKEN_ID },
  'oauthTokens.list': { applicationId: `oauthapp_${'0'.repeat(27)}` },
  'oauthTokens.verify': { credential: 'garbage' },
  'oauthTokens.revoke': { id: OAUTH_TOKEN_ID },
  'oauthTokens.revokeByValue': { value: 'garbage' },
  'apiKeys.create': { name: 'made by the test of access', subject: 'user_access' },
  'apiKeys.import': { items: [{}] },
  'apiKeys.get': { id: API_KEY_ID },
  'apiKeys.list': {},
  'apiKeys.update': { id: API_KEY_ID, name: 'renamed' },
  'apiKeys.setCredits': { id: API_KEY_ID, remaining: 1 },
  'apiKeys.enable': { id: API_KEY_ID },
  'apiKeys.disable': { id: API_KEY_ID },
  'apiKeys.rotate': { id: API_KEY_ID },
  'apiKeys.cancelRotation': { id: API_KEY_ID },
  'apiKeys.completeRotation': { id: API_KEY_ID },
  'apiKeys.revoke': { id: API_KEY_ID },
  'apiKeys.revokeByValue': { value: 'garbage' },
  'apiKeys.revokeAll': { subject: 'user_access' },
  'apiKeys.delete': { id: API_KEY_ID },
  'keyPrefixes.create': { prefix: 'access_' },
  'keyPrefixes.list': {},
  'keyPrefixes.delete': { prefix: 'none_' },
  'keyPolicies.create': { name: 'made by the test of access' },
  'keyPolicies.get': { id: KEY_POLICY_ID },
  'keyPolicies.list': {},
  'keyPolicies.update': { id: KEY_POLICY_ID, isDefault: true },
  'keyPolicies.delete': { id: KEY_POLICY_ID },
  'oauthApplications.create': {
    name: 'made by the test of access',
    redirectUris: ['https://app.example/cb'],
  },
  'oauthApplications.get': { id: APPLICATION_ID },
  'oauthApplications.list': {},
  'oauthApplications.update': { id: APPLICATION_ID, name: 'renamed' },
  'oauthApplications.enable': { id: APPLICATION_ID },
  'oauthApplications.disable': { id: APPLICATION_ID },
  'oauthApplications.rotateSecret': { id: APPLICATION_ID },
  'oauthApplications.cancelRotation': { id: APPLICATION_ID },
  'oauthApplications.completeRotation': { id: APPLICATION_ID },
  'oauthApplications.revokeTokens': { id: APPLICATION_ID },
  'oauthApplications.delete': { id: APPLICATION_ID },
  'oauthSettings.get': undefined,
  'oauthSettings.update': { registration: 'open' },
  'oauthLogos.set': { applicationId: APPLICATION_ID, content: 'R0lGODlh' },
  'oauthLogos.delete': { applicationId: APPLICATION_ID },
  'initialAccessTokens.create': { name: 'made by the test of access' },
  'initialAccessTokens.list': {},
  'initialAccessTokens.revoke': { id: INITIAL_ACCESS_TOKEN_ID },
  'oauthScopes.create': { name: 'access:test', description: 'Made by the test of access' },
  'oauthScopes.list': {},
  'oauthScopes.update': { name: 'none:there', advertised: false },
  'oauthScopes.delete': { name: 'none:there' },
  'oauthGrants.get': { id: GRANT_ID },
  'oauthGrants.list': {},
  'oauthGrants.revoke': { id: GRANT_ID },
  'oauthGrants.withdraw': { subject: 'user_access', applicationId: APPLICATION_ID },
  'oauthGrants.revokeAll': { subject: 'user_access' },
  'overview.get': undefined,
  'panelTokens.create': { subject: 'user_access', actions: ['read'] },
  'panelIssuers.create': { issuer: 'https://login.example', audience: 'app' },
  'panelIssuers.list': undefined,
  'panelIssuers.delete': { id: `pis_${'0'.repeat(27)}` },
  'panelKeys.options': undefined,
  'panelKeys.list': {},
  'panelKeys.create': { name: 'made by the test of access' },
  'panelKeys.update': { id: API_KEY_ID, name: 'renamed' },
  'panelKeys.rotate': { id: API_KEY_ID },
  'panelKeys.completeRotation': { id: API_KEY_ID },
  'panelKeys.revoke': { id: API_KEY_ID },
  'panelKeys.usage': { id: API_KEY_ID },
  'panelGrants.list': {},
  'panelGrants.revoke': { applicationId: `oauthapp_${'0'.repeat(27)}` },
  'subjects.get': { id: 'user_access' },
  'subjects.list': {},
  'subjects.set': { id: 'user_access', rateLimit: { count: 1, windowSeconds: 1 } },
  'subjects.setCredits': { id: 'user_access', remaining: 1 },
  'subjects.enable': { id: 'user_access' },
  'subjects.disable': { id: 'user_access' },
  'credentials.verify': { credential: 'garbage' },
  'credentials.verifyBatch': { items: [{ credential: 'garbage' }] },
  'secretKeys.create': { name: 'made by the test of access', role: 'verify' },
  'secretKeys.list': {},
  'secretKeys.update': { id: SECRET_KEY_ID },
  'secretKeys.rotate': { id: SECRET_KEY_ID },
  'secretKeys.cancelRotation': { id: SECRET_KEY_ID },
  'secretKeys.completeRotation': { id: SECRET_KEY_ID },
  'secretKeys.revoke': { id: SECRET_KEY_ID },
  'signingKeys.create': {},
  'signingKeys.list': undefined,
  'signingKeys.activate': { kid: SIGNING_KEY_ID },
  'signingKeys.retire': { kid: SIGNING_KEY_ID },
  'signingKeys.emergencyRetire': { kid: SIGNING_KEY_ID },
  'webhookEndpoints.create': { url: 'https://receiver.example/' },
  'webhookEndpoints.get': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.list': {},
  'webhookEndpoints.update': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.enable': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.disable': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.rotateSecret': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.test': { id: `ep_${'0'.repeat(27)}` },
  'webhookEndpoints.delete': { id: `ep_${'0'.repeat(27)}` },
  'deliveries.list': {},
  'deliveries.get': { id: `dlv_${'0'.repeat(27)}` },
  'deliveries.resend': { id: `dlv_${'0'.repeat(27)}` },
  'deliveries.replay': { from: 0 },
  'events.list': {},
  'usage.ofApiKeys': { ids: [API_KEY_ID] },
  'usage.ofSubjects': { subjects: ['user_access'] },
  'signInLinks.issue': undefined,
  'operatorSessions.list': {},
  'operatorSessions.end': { id: `ses_${'0'.repeat(27)}` },
  'interactions.get': { id: `int_${'0'.repeat(27)}` },
  'interactions.complete': { id: `int_${'0'.repeat(27)}`, subject: 'user_access' },
  'interactions.deny': { id: `int_${'0'.repeat(27)}` },
  'users.list': {},
  'users.get': { id: USER_ID },
  'users.invite': {},
  'users.update': { id: USER_ID },
  'users.enable': { id: USER_ID },
  'users.disable': { id: USER_ID },
  'users.delete': { id: USER_ID },
  'userInvitations.list': {},
  'userInvitations.delete': { id: `inv_${'0'.repeat(27)}` },
  'userSessions.list': {},
  'userSessions.end': { id: `uss_${'0'.repeat(27)}` },
  'userSessions.endAll': { subject: USER_ID },
  'usage.report': {
    batchId: 'access',
    counts: [{ kind: 'api_key', id: API_KEY_ID, hour: 0, valid: 1, refused: 0 }],
  },
  'jobs.list': undefined,
  'jobs.run': { name: 'key-rotation' },
};

const REFUSALS = ['unauthenticated', 'forbidden'];

const expectedOf = (path: string, who: Who | null) => {
  if (who === null) return 'unauthenticated';
  return table[path]?.includes(who) ? 'let in' : 'forbidden';
};

describe('the table of access', () => {
  it('names every procedure, and nothing that is none', () => {
    expect(Object.keys(ACCESS).sort()).toEqual(PATHS);
  });

  it('the test of access has an input for every procedure', () => {
    expect(Object.keys(INPUTS).sort()).toEqual(PATHS);
  });

  it('mayCall() lets nobody call what is not in the table, nor what every object has', () => {
    const principals: Principal[] = [
      ...ROLES.map((role) => ({ kind: 'secret_key' as const, id: 'sk_1', role })),
      { kind: 'machine', id: MACHINE_ID, secretId: 'sec_1', mayVerify: true },
      { kind: 'system', id: 'setup' },
    ];
    for (const principal of principals)
      for (const path of ['', 'machines', 'machines.promote', 'toString', '__proto__', 'constructor'])
        expect(mayCall(principal, path)).toBe(false);
  });

  it('mayCall() lets the system call nothing: it is no caller', () => {
    for (const path of PATHS) expect(mayCall({ kind: 'system', id: 'setup' }, path)).toBe(false);
  });
});

describeOnEachDialect('access', (dialect) => {
  it('every procedure lets in whom the table names and nobody else', async () => {
    const deps = await openTestDeps(dialect);
    const [found, expected]: [unknown[], unknown[]] = [[], []];
    for (const [name, secret, who] of await everybody(deps)) {
      for (const path of PATHS) {
        const outcome = await outcomeOf(call(deps, secret, path, INPUTS[path]));
        expect(outcome).not.toBe('internal');
        found.push([name, path, REFUSALS.includes(outcome) ? outcome : 'let in']);
        expected.push([name, path, expectedOf(path, who)]);
      }
    }
    expect(found).toEqual(expected);
  });

  it('nobody has an input looked at before they are let in', async () => {
    const deps = await openTestDeps(dialect);
    const [found, expected]: [unknown[], unknown[]] = [[], []];
    for (const [name, secret, who] of await everybody(deps)) {
      for (const path of PATHS) {
        const outcome = await outcomeOf(call(deps, secret, path, { garbage: 'x'.repeat(100_000) }));
        const wanted = expectedOf(path, who);
        found.push([name, path, outcome]);
        expected.push([name, path, wanted === 'let in' ? outcomeOfGarbage(path) : wanted]);
      }
    }
    expect(found).toEqual(expected);
  });

  it('what is refused changes nothing', async () => {
    const deps = await openTestDeps(dialect);
    const people = await everybody(deps);
    const { db, tables } = deps.store.read;
    const state = async () =>
      JSON.stringify([
        await db.select().from(tables.events),
        await db.select().from(tables.machines),
        await db.select().from(tables.apiKeys),
        await db.select().from(tables.secrets),
        await db.select().from(tables.keyPrefixes),
        await db.select().from(tables.keyPolicies),
        await db.select().from(tables.subjects),
        await db.select().from(tables.credits),
      ]);
    const before = await state();
    for (const [, secret, who] of people)
      for (const path of PATHS)
        if (expectedOf(path, who) !== 'let in') await outcomeOf(call(deps, secret, path, INPUTS[path]));
    expect(await state()).toBe(before);
  });
});

/** What takes no input cannot be given a wrong one. */
const outcomeOfGarbage = (path: string) => (INPUTS[path] === undefined ? 'ok' : 'invalid_input');
