import { getTableName, type Table } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import type { Db, Lane, Store } from '../../db/store.ts';
import { createApiKey, createApiKeyInput } from '../../server/domain/api-keys.ts';
import { type EventType, REVOCATIONS } from '../../server/domain/event-types.ts';
import { listEvents } from '../../server/domain/events.ts';
import {
  listInitialAccessTokens,
  listInitialAccessTokensInput,
} from '../../server/domain/initial-access-tokens.ts';
import { createKeyPolicy, createKeyPolicyInput } from '../../server/domain/key-policies.ts';
import { createM2mToken, createM2mTokenInput } from '../../server/domain/m2m-tokens.ts';
import { setMachineEnabled } from '../../server/domain/machines.ts';
import {
  createOauthApplication,
  createOauthApplicationInput,
  setOauthApplicationEnabled,
} from '../../server/domain/oauth-applications.ts';
import { type GrantRow, insertGrant } from '../../server/domain/oauth-grants.ts';
import { beginSession, listOperatorSessions } from '../../server/domain/operator-sessions.ts';
import { listPanelIssuers } from '../../server/domain/panel-issuers.ts';
import { createSecretKey, createSecretKeyInput } from '../../server/domain/secret-keys.ts';
import { createSigningKey } from '../../server/domain/signing-keys.ts';
import { listUserInvitations } from '../../server/domain/user-invitations.ts';
import { listUserSessions } from '../../server/domain/user-sessions.ts';
import { listUsers } from '../../server/domain/users.ts';
import { createWebhookEndpoint, createWebhookEndpointInput } from '../../server/domain/webhook-endpoints.ts';
import { call, MUTATIONS } from '../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { expectAsDescribed, expectChained } from '../support/event-log.ts';
import { allow, newMachine, type TestMachine } from '../support/machines.ts';
import { newAccessToken, newApplication } from '../support/oauth-tokens.ts';
import { newConnectedApplication, newPanelToken } from '../support/panels.ts';
import { newUser, newUserSession } from '../support/users.ts';

const admin = callerWith('admin');

/** What there is before each mutation. */
interface World {
  deps: TestDeps;
  from: TestMachine;
  to: TestMachine;
  apiKey: Awaited<ReturnType<typeof createApiKey>>;
  keyPolicy: Awaited<ReturnType<typeof createKeyPolicy>>;
  m2mToken: Awaited<ReturnType<typeof createM2mToken>>;
  accessToken: Awaited<ReturnType<typeof newAccessToken>>;
  secretKey: Awaited<ReturnType<typeof createSecretKey>>;
  panelToken: string | undefined;
  upcomingKey: Awaited<ReturnType<typeof createSigningKey>>;
  webhookEndpoint: Awaited<ReturnType<typeof createWebhookEndpoint>>;
  application: Awaited<ReturnType<typeof createOauthApplication>>;
  grant: GrantRow;
}

async function openWorld(dialect: Store['dialect']): Promise<World> {
  const deps = await openTestDeps(dialect);
  const from = await newMachine(deps, 'from');
  const to = await newMachine(deps, 'to');
  await allow(deps, from.id, to.id, ['read']);
  const application = await createOauthApplication(
    deps,
    admin,
    createOauthApplicationInput.parse({ name: 'notes', redirectUris: ['https://app.example/cb'] }),
  );
  return {
    deps,
    from,
    to,
    apiKey: await createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1' })),
    keyPolicy: await createKeyPolicy(deps, admin, createKeyPolicyInput.parse({ name: 'standard' })),
    m2mToken: await createM2mToken(deps, from.caller, createM2mTokenInput.parse({})),
    accessToken: await newAccessToken(deps, (await newApplication(deps)).row),
    secretKey: await createSecretKey(deps, admin, createSecretKeyInput.parse({ name: 'ci', role: 'read' })),
    panelToken: await newPanelToken(deps, 'user_1'),
    application,
    grant: await newGrant(deps, application.id),
    upcomingKey: await createSigningKey(deps, admin, {}),
    webhookEndpoint: await createWebhookEndpoint(
      deps,
      admin,
      createWebhookEndpointInput.parse({ url: 'https://receiver.example/' }),
    ),
  };
}

/** What a user allowed, as a code's redemption leaves it. */
const newGrant = (deps: TestDeps, applicationId: string) =>
  deps.store.tx((tx) =>
    insertGrant(tx, deps, {
      application: {
        id: applicationId,
        token_generation: 0,
        refresh_token_max_seconds: null,
        unused_until: null,
      },
      subject: 'user_1',
      organizationId: null,
      scopes: ['openid'],
      resources: [],
      redirectUri: 'https://app.example/cb',
      claims: {},
      authTime: 0,
      nonce: null,
    }),
  );

interface Row {
  /** The type of the event it appends, or null for what is exempt: minting, verifying, and reporting that. */
  event: EventType | null;
  input: (world: World) => unknown;
  /** Who calls: the machine `from`, a user in front of a panel, or else the first admin key. */
  by?: 'machine' | 'end user';
  prepare?: (world: World) => Promise<unknown>;
  /** Whether a change of a kind that may take something away takes nothing here. */
  narrowsNothing?: true;
  /** Whether the same call again finds nothing to do. */
  repeatable?: true;
}

const secretOf = ({ from, panelToken, deps }: World, by: Row['by']) =>
  by === undefined ? deps.adminKey : by === 'machine' ? from.secret : panelToken;

const newPanelIssuer = ({ deps }: World) =>
  call(deps, deps.adminKey, 'panelIssuers.create', { issuer: 'https://login.example', audience: 'app' });

/** A user who is signed in. */
const newUserIn = async ({ deps }: World) => newUserSession(deps, await newUser(deps));
const userOf = async ({ deps }: World) => ({
  id: (await listUsers(deps, { limit: 1, offset: 0 })).data[0]?.id ?? '',
});

const INTERACTION_ID = `int_${'0'.repeat(27)}`;
/** A user who was handed to the host application. */
const handOff = async ({ deps }: World) => {
  Object.assign(deps, { signIn: { kind: 'handoff', url: 'https://app.example/sign-in' } });
  await deps.store.tx(({ db, tables: { oauthInteractions } }) =>
    db.insert(oauthInteractions).values({
      id: INTERACTION_ID,
      application_id: null,
      browser_hash: Buffer.alloc(32),
      parameters: {},
      step: 'sign_in',
      network: '192.0.2.1',
      created_at: 0,
      expires_at: deps.now() + 60_000,
    }),
  );
};

const machineOf = ({ to }: World) => ({ id: to.id });
const apiKeyOf = ({ apiKey }: World) => ({ id: apiKey.id });
const keyPolicyOf = ({ keyPolicy }: World) => ({ id: keyPolicy.id });
const subjectOf = () => ({ id: 'user_1' });
const applicationOf = ({ application }: World) => ({ id: application.id });
const newScope = ({ deps }: World) =>
  call(deps, deps.adminKey, 'oauthScopes.create', { name: 'tasks:read', description: 'Read your tasks' });
const secretKeyOf = ({ secretKey }: World) => ({ id: secretKey.id });
const webhookEndpointOf = ({ webhookEndpoint }: World) => ({ id: webhookEndpoint.id });
const DELIVERY_ID = `dlv_${'0'.repeat(27)}`;
/** Leaves a delivery that was given up. */
const oweDead = ({ deps, webhookEndpoint }: World) =>
  deps.store.tx(async ({ db, tables: { deliveries } }) => {
    await db.insert(deliveries).values({
      id: DELIVERY_ID,
      event_seq: 1,
      endpoint_id: webhookEndpoint.id,
      state: 'dead',
      priority: 1,
      attempt: 10,
      failures: 10,
      next_at: 0,
      created_at: 0,
    });
  });
/** Begins an overlap of the procedure's thing: its first rotation. */
const rotated = (path: string, of: (world: World) => object) => (world: World) =>
  call(world.deps, world.deps.adminKey, path, { ...of(world), overlapSeconds: 60 });
const edgeOf = ({ from, to }: World) => ({ fromMachineId: from.id, toMachineId: to.id });

const TABLE: Record<string, Row> = {
  'machines.create': { event: 'machine.created', input: () => ({ name: 'another' }) },
  'machines.update': {
    event: 'machine.updated',
    // As of an API key: a right may be taken.
    input: (world) => ({ ...machineOf(world), name: 'renamed', mayVerify: true }),
    repeatable: true,
  },
  'machines.import': {
    event: 'machine.imported',
    input: () => ({
      id: `mch_${'9'.repeat(27)}`,
      name: 'imported',
      hash: '9'.repeat(64),
      shape: { prefix: 'legacy_', length: 40 },
    }),
    repeatable: true,
  },
  'machines.enable': {
    event: 'machine.enabled',
    prepare: ({ deps, to }) => setMachineEnabled(deps, admin, to.id, false),
    input: machineOf,
    repeatable: true,
  },
  'machines.disable': { event: 'machine.disabled', input: machineOf, repeatable: true },
  'machines.rotateSecret': {
    event: 'machine.secret_rotated',
    input: (world) => ({ ...machineOf(world), compromised: true }),
  },
  'machines.rotateOwnSecret': { event: 'machine.secret_rotated', by: 'machine', input: () => ({}) },
  'machines.cancelRotation': {
    event: 'machine.secret_rotation_cancelled',
    prepare: rotated('machines.rotateSecret', machineOf),
    input: machineOf,
  },
  'machines.completeRotation': {
    event: 'machine.secret_rotation_completed',
    prepare: rotated('machines.rotateSecret', machineOf),
    input: machineOf,
  },
  'machines.delete': { event: 'machine.deleted', input: machineOf },
  'machineScopes.create': {
    event: 'machine_scope.created',
    input: ({ from, to }) => ({ fromMachineId: to.id, toMachineId: from.id, scopes: ['read'] }),
  },
  'machineScopes.update': {
    event: 'machine_scope.updated',
    input: (world) => ({ ...edgeOf(world), scopes: [] }),
    repeatable: true,
  },
  'machineScopes.delete': { event: 'machine_scope.deleted', input: edgeOf },
  'm2mTokens.create': {
    event: null,
    by: 'machine',
    // Its status index is handed out from memory: what takes a block of them is no part of minting.
    prepare: async ({ deps }) => void (await deps.statusIndexes.take(deps)),
    input: () => ({ format: 'jwt' }),
  },
  'm2mTokens.revoke': {
    event: 'm2m_token.revoked',
    input: ({ m2mToken }) => ({ id: m2mToken.id }),
    repeatable: true,
  },
  'm2mTokens.revokeByValue': {
    event: 'm2m_token.revoked',
    input: ({ m2mToken }) => ({ value: m2mToken.token }),
    repeatable: true,
  },
  'm2mTokens.revokeAll': { event: 'machine.tokens_revoked', by: 'machine', input: () => ({}) },
  'oauthTokens.verify': { event: null, input: ({ accessToken }) => ({ credential: accessToken.value }) },
  'oauthTokens.revoke': {
    event: 'oauth_token.revoked',
    input: ({ accessToken }) => ({ id: accessToken.id }),
    repeatable: true,
  },
  'oauthTokens.revokeByValue': {
    event: 'oauth_token.revoked',
    input: ({ accessToken }) => ({ value: accessToken.value }),
    repeatable: true,
  },
  'apiKeys.create': { event: 'api_key.created', input: () => ({ name: 'another', subject: 'user_1' }) },
  'apiKeys.import': {
    event: 'api_keys.imported',
    input: () => ({
      items: [
        { hash: '0'.repeat(64), subject: 'user_1', name: 'one' },
        { hash: '1'.repeat(64), subject: 'user_2', name: 'two' },
      ],
      shapes: [{ prefix: 'acme_', length: 40 }],
    }),
    repeatable: true,
  },
  'apiKeys.update': {
    event: 'api_key.updated',
    // A name alone takes nothing from anybody; scopes may.
    input: (world) => ({ ...apiKeyOf(world), name: 'renamed', scopes: [] }),
    repeatable: true,
  },
  'apiKeys.setCredits': {
    event: 'api_key.credits_changed',
    input: (world) => ({ ...apiKeyOf(world), remaining: 10 }),
    repeatable: true,
  },
  'apiKeys.enable': {
    event: 'api_key.enabled',
    prepare: ({ deps, apiKey }) => call(deps, deps.adminKey, 'apiKeys.disable', { id: apiKey.id }),
    input: apiKeyOf,
    repeatable: true,
  },
  'apiKeys.disable': { event: 'api_key.disabled', input: apiKeyOf, repeatable: true },
  'apiKeys.rotate': {
    event: 'api_key.secret_rotated',
    input: (world) => ({ ...apiKeyOf(world), compromised: true }),
  },
  'apiKeys.cancelRotation': {
    event: 'api_key.secret_rotation_cancelled',
    prepare: rotated('apiKeys.rotate', apiKeyOf),
    input: apiKeyOf,
  },
  'apiKeys.completeRotation': {
    event: 'api_key.secret_rotation_completed',
    prepare: rotated('apiKeys.rotate', apiKeyOf),
    input: apiKeyOf,
  },
  'apiKeys.revoke': { event: 'api_key.revoked', input: apiKeyOf, repeatable: true },
  'apiKeys.revokeByValue': {
    event: 'api_key.revoked',
    input: ({ apiKey }) => ({ value: apiKey.secret }),
    repeatable: true,
  },
  'apiKeys.revokeAll': {
    event: 'subject.api_keys_revoked',
    input: () => ({ subject: 'user_1' }),
    repeatable: true,
  },
  'apiKeys.delete': { event: 'api_key.deleted', input: apiKeyOf },
  'oauthApplications.create': {
    event: 'oauth_application.created',
    input: () => ({ name: 'notes', redirectUris: ['https://app.example/cb'] }),
  },
  'oauthApplications.update': {
    event: 'oauth_application.updated',
    input: (world) => ({ ...applicationOf(world), name: 'renamed' }),
    repeatable: true,
  },
  'oauthApplications.enable': {
    event: 'oauth_application.enabled',
    prepare: ({ deps, application }) => setOauthApplicationEnabled(deps, admin, application.id, false),
    input: applicationOf,
    repeatable: true,
  },
  'oauthApplications.disable': {
    event: 'oauth_application.disabled',
    input: applicationOf,
    repeatable: true,
  },
  'oauthApplications.rotateSecret': {
    event: 'oauth_application.secret_rotated',
    input: (world) => ({ ...applicationOf(world), compromised: true }),
  },
  'oauthApplications.cancelRotation': {
    event: 'oauth_application.secret_rotation_cancelled',
    prepare: rotated('oauthApplications.rotateSecret', applicationOf),
    input: applicationOf,
  },
  'oauthApplications.completeRotation': {
    event: 'oauth_application.secret_rotation_completed',
    prepare: rotated('oauthApplications.rotateSecret', applicationOf),
    input: applicationOf,
  },
  'oauthApplications.revokeTokens': { event: 'oauth_application.tokens_revoked', input: applicationOf },
  'oauthApplications.delete': { event: 'oauth_application.deleted', input: applicationOf },
  'oauthSettings.update': {
    event: 'oauth_settings.updated',
    input: () => ({ registration: 'open' }),
    repeatable: true,
  },
  'oauthLogos.set': {
    event: 'oauth_application.updated',
    input: ({ application }) => ({ applicationId: application.id, content: 'R0lGODlh' }),
    repeatable: true,
  },
  'oauthLogos.delete': {
    event: 'oauth_application.updated',
    prepare: ({ deps, application }) =>
      call(deps, deps.adminKey, 'oauthLogos.set', { applicationId: application.id, content: 'R0lGODlh' }),
    input: ({ application }) => ({ applicationId: application.id }),
    repeatable: true,
  },
  'initialAccessTokens.create': {
    event: 'initial_access_token.created',
    input: () => ({ name: 'partner' }),
  },
  'initialAccessTokens.revoke': {
    event: 'initial_access_token.revoked',
    prepare: ({ deps }) => call(deps, deps.adminKey, 'initialAccessTokens.create', { name: 'partner' }),
    input: async ({ deps }: World) => {
      const { data } = await listInitialAccessTokens(deps, listInitialAccessTokensInput.parse({}));
      return { id: data[0]?.id };
    },
  },
  'oauthScopes.create': {
    event: 'oauth_scope.created',
    input: () => ({ name: 'tasks:read', description: 'Read your tasks' }),
  },
  'oauthScopes.update': {
    event: 'oauth_scope.updated',
    prepare: newScope,
    input: () => ({ name: 'tasks:read', advertised: false }),
    repeatable: true,
  },
  'oauthScopes.delete': {
    event: 'oauth_scope.deleted',
    prepare: newScope,
    input: () => ({ name: 'tasks:read' }),
  },
  'oauthGrants.revoke': {
    event: 'oauth_grant.revoked',
    input: ({ grant }) => ({ id: grant.id }),
    repeatable: true,
  },
  'oauthGrants.withdraw': {
    event: 'oauth_consent.withdrawn',
    input: ({ grant, application }) => ({ subject: grant.subject, applicationId: application.id }),
    repeatable: true,
  },
  'oauthGrants.revokeAll': {
    event: 'subject.oauth_grants_revoked',
    input: ({ grant }) => ({ subject: grant.subject }),
    repeatable: true,
  },
  'keyPrefixes.create': { event: 'key_prefix.created', input: () => ({ prefix: 'acme_' }) },
  'keyPrefixes.delete': {
    event: 'key_prefix.deleted',
    prepare: ({ deps }) => call(deps, deps.adminKey, 'keyPrefixes.create', { prefix: 'acme_' }),
    input: () => ({ prefix: 'acme_' }),
  },
  'keyPolicies.create': {
    event: 'key_policy.created',
    input: () => ({ name: 'another', isDefault: true }),
  },
  'keyPolicies.update': {
    event: 'key_policy.updated',
    input: (world) => ({ ...keyPolicyOf(world), liveKeysMax: 3 }),
    repeatable: true,
  },
  'keyPolicies.delete': { event: 'key_policy.deleted', input: keyPolicyOf },
  'panelTokens.create': { event: null, input: () => ({ subject: 'user_1', actions: ['read'] }) },
  'panelIssuers.create': {
    event: 'panel_issuer.created',
    input: () => ({ issuer: 'https://login.example', audience: 'app' }),
  },
  'panelIssuers.delete': {
    event: 'panel_issuer.deleted',
    prepare: newPanelIssuer,
    input: async ({ deps }: World) => ({ id: (await listPanelIssuers(deps))[0]?.id }),
  },
  'panelKeys.create': { event: 'api_key.created', input: () => ({ name: 'own' }), by: 'end user' },
  'panelKeys.update': {
    event: 'api_key.updated',
    input: (world) => ({ ...apiKeyOf(world), name: 'renamed' }),
    by: 'end user',
    narrowsNothing: true,
    repeatable: true,
  },
  'panelKeys.rotate': { event: 'api_key.secret_rotated', input: apiKeyOf, by: 'end user' },
  'panelKeys.completeRotation': {
    event: 'api_key.secret_rotation_completed',
    prepare: rotated('apiKeys.rotate', apiKeyOf),
    input: apiKeyOf,
    by: 'end user',
  },
  'panelKeys.revoke': { event: 'api_key.revoked', input: apiKeyOf, by: 'end user', repeatable: true },
  'panelGrants.revoke': {
    event: 'oauth_consent.withdrawn',
    input: ({ deps }) => newConnectedApplication(deps, 'user_1'),
    by: 'end user',
    repeatable: true,
  },
  'subjects.set': {
    event: 'subject.updated',
    input: () => ({ ...subjectOf(), rateLimit: { count: 10, windowSeconds: 60 } }),
    repeatable: true,
  },
  'subjects.setCredits': {
    event: 'subject.credits_changed',
    input: () => ({ ...subjectOf(), remaining: 10 }),
    repeatable: true,
  },
  'subjects.enable': {
    event: 'subject.enabled',
    prepare: ({ deps }) => call(deps, deps.adminKey, 'subjects.disable', subjectOf()),
    input: subjectOf,
    repeatable: true,
  },
  'subjects.disable': { event: 'subject.disabled', input: subjectOf, repeatable: true },
  'credentials.verify': {
    event: null,
    input: ({ apiKey }) => ({ credential: apiKey.secret }),
  },
  'credentials.verifyBatch': {
    event: null,
    input: ({ apiKey }) => ({ items: [{ credential: apiKey.secret }] }),
  },
  'signInLinks.issue': { event: null, input: () => undefined },
  'operatorSessions.end': {
    event: 'operator_session.ended',
    prepare: ({ deps }: World) => beginSession(deps, { secretKey: deps.adminKey }, () => '127.0.0.1'),
    input: async ({ deps }: World) => ({
      id: (await listOperatorSessions(deps, { limit: 1, offset: 0 })).data[0]?.id,
    }),
  },
  'interactions.complete': {
    event: null,
    prepare: handOff,
    input: () => ({ id: INTERACTION_ID, subject: 'ada' }),
  },
  'interactions.deny': { event: null, prepare: handOff, input: () => ({ id: INTERACTION_ID }) },
  'users.invite': { event: 'user.invited', input: () => ({ email: 'ada@example.com' }) },
  'users.update': {
    event: 'user.updated',
    prepare: newUserIn,
    input: async (world: World) => ({ ...(await userOf(world)), name: 'Augusta' }),
    repeatable: true,
  },
  'users.enable': {
    event: 'user.enabled',
    prepare: async (world: World) => {
      await newUserIn(world);
      await call(world.deps, world.deps.adminKey, 'users.disable', await userOf(world));
    },
    input: userOf,
    repeatable: true,
  },
  'users.disable': { event: 'user.disabled', prepare: newUserIn, input: userOf, repeatable: true },
  'users.delete': { event: 'user.deleted', prepare: newUserIn, input: userOf },
  'userInvitations.delete': {
    event: 'user.uninvited',
    prepare: ({ deps }: World) => call(deps, deps.adminKey, 'users.invite', {}),
    input: async ({ deps }: World) => ({
      id: (await listUserInvitations(deps, { limit: 1, offset: 0 })).data[0]?.id,
    }),
  },
  'userSessions.end': {
    event: 'user_session.ended',
    prepare: newUserIn,
    input: async ({ deps }: World) => ({
      id: (await listUserSessions(deps, { limit: 1, offset: 0 })).data[0]?.id,
    }),
  },
  'userSessions.endAll': {
    event: 'user_session.ended',
    prepare: newUserIn,
    input: async (world: World) => ({ subject: (await userOf(world)).id }),
    repeatable: true,
  },
  'usage.report': {
    event: null,
    input: ({ deps, apiKey }) => ({
      batchId: 'one',
      counts: [
        { kind: 'api_key', id: apiKey.id, hour: Math.floor(deps.now() / 3_600_000), valid: 1, refused: 0 },
      ],
    }),
  },
  'secretKeys.create': { event: 'secret_key.created', input: () => ({ name: 'another', role: 'verify' }) },
  'secretKeys.update': {
    event: 'secret_key.updated',
    input: (world) => ({ ...secretKeyOf(world), rotation: { periodSeconds: 86_400 } }),
    repeatable: true,
  },
  'secretKeys.rotate': {
    event: 'secret_key.secret_rotated',
    input: (world) => ({ ...secretKeyOf(world), compromised: true }),
  },
  'secretKeys.cancelRotation': {
    event: 'secret_key.secret_rotation_cancelled',
    prepare: rotated('secretKeys.rotate', secretKeyOf),
    input: secretKeyOf,
  },
  'secretKeys.completeRotation': {
    event: 'secret_key.secret_rotation_completed',
    prepare: rotated('secretKeys.rotate', secretKeyOf),
    input: secretKeyOf,
  },
  'secretKeys.revoke': {
    event: 'secret_key.revoked',
    input: secretKeyOf,
    repeatable: true,
  },
  'signingKeys.create': { event: 'signing_key.created', input: () => ({ alg: 'EdDSA' }) },
  'signingKeys.activate': {
    event: 'signing_key.activated',
    input: ({ upcomingKey }) => ({ kid: upcomingKey.kid, force: true }),
    repeatable: true,
  },
  'signingKeys.retire': {
    event: 'signing_key.retired',
    input: ({ upcomingKey }) => ({ kid: upcomingKey.kid }),
    repeatable: true,
  },
  'signingKeys.emergencyRetire': {
    event: 'signing_key.emergency_retired',
    prepare: ({ deps, upcomingKey: { kid } }) =>
      call(deps, deps.adminKey, 'signingKeys.activate', { kid, force: true }),
    input: ({ upcomingKey }) => ({ kid: upcomingKey.kid }),
    repeatable: true,
  },
  'webhookEndpoints.create': {
    event: 'webhook_endpoint.created',
    input: () => ({ url: 'https://receiver.example/hooks' }),
  },
  'webhookEndpoints.update': {
    event: 'webhook_endpoint.updated',
    input: (world) => ({ ...webhookEndpointOf(world), eventTypes: ['machine.*'] }),
    repeatable: true,
  },
  'webhookEndpoints.enable': {
    event: 'webhook_endpoint.enabled',
    prepare: (world) =>
      call(world.deps, world.deps.adminKey, 'webhookEndpoints.disable', webhookEndpointOf(world)),
    input: webhookEndpointOf,
    repeatable: true,
  },
  'webhookEndpoints.disable': {
    event: 'webhook_endpoint.disabled',
    input: webhookEndpointOf,
    repeatable: true,
  },
  'webhookEndpoints.rotateSecret': { event: 'webhook_endpoint.secret_rotated', input: webhookEndpointOf },
  'webhookEndpoints.test': { event: 'webhook_endpoint.test', input: webhookEndpointOf },
  'webhookEndpoints.delete': { event: 'webhook_endpoint.deleted', input: webhookEndpointOf },
  'deliveries.resend': { event: 'delivery.resent', prepare: oweDead, input: () => ({ id: DELIVERY_ID }) },
  'deliveries.replay': {
    event: 'delivery.replayed',
    prepare: oweDead,
    input: ({ webhookEndpoint }) => ({ endpointId: webhookEndpoint.id }),
    repeatable: true,
  },
  'jobs.run': {
    event: 'job.requested',
    input: () => ({ name: 'key-rotation' }),
    repeatable: true,
  },
};

interface Transaction {
  lane: Lane;
  /** In order: what was done to which table. */
  writes: string[];
}

/** The same deps, on a store that notes each transaction. */
function watched(deps: TestDeps): { deps: TestDeps; transactions: Transaction[] } {
  const transactions: Transaction[] = [];
  const tx: Store['tx'] = (work, lane = 'normal') =>
    deps.store.tx((rows) => {
      const writes: string[] = [];
      transactions.push({ lane, writes });
      return work({ ...rows, db: noting(rows.db, writes) });
    }, lane);
  return { deps: { ...deps, store: { ...deps.store, tx } }, transactions };
}

function noting(db: Db, writes: string[]): Db {
  return new Proxy(db, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      if (name !== 'insert' && name !== 'update' && name !== 'delete') return member.bind(target);
      return (table: Table) => {
        writes.push(`${name} ${getTableName(table)}`);
        return member.call(target, table);
      };
    },
  });
}

/** What writes rows, and no event: these wait behind whatever changes more. */
const MINTING = [
  'interactions.complete',
  'interactions.deny',
  'm2mTokens.create',
  'panelTokens.create',
  'signInLinks.issue',
  'usage.report',
];

describe('the table of mutations', () => {
  it('has a row for every mutation of the router, and for nothing else', () => {
    expect(Object.keys(TABLE).sort()).toEqual(MUTATIONS);
  });

  it('exempts minting, verifying and reporting of it, and what lets people in for a while, alone', () => {
    const exempt = Object.keys(TABLE).filter((path) => TABLE[path]?.event === null);
    expect(exempt.sort()).toEqual([
      'credentials.verify',
      'credentials.verifyBatch',
      'interactions.complete',
      'interactions.deny',
      'm2mTokens.create',
      'oauthTokens.verify',
      'panelTokens.create',
      'signInLinks.issue',
      'usage.report',
    ]);
  });
});

describeOnEachDialect('one event', (dialect) => {
  for (const [path, row] of Object.entries(TABLE)) {
    const wanted = row.event === null ? 'no event' : `exactly one ${row.event}, last in its transaction`;
    it(`${path} appends ${wanted}`, async () => {
      const world = await openWorld(dialect);
      await row.prepare?.(world);
      const secret = secretOf(world, row.by);
      const input = await row.input(world);
      const before = await expectChained(world.deps);
      const { deps, transactions } = watched(world.deps);

      await call(deps, secret, path, input);
      const appended = (await listEvents(deps, { after: before, limit: 10 })).data;
      expect(appended.map(({ type }) => type)).toEqual(row.event === null ? [] : [row.event]);
      await expectChained(deps);
      await expectAsDescribed(deps);
      if (row.event === null) {
        const isWriting = MINTING.includes(path);
        expect(transactions.map(({ lane }) => lane)).toEqual(isWriting ? ['minting'] : []);
        return;
      }

      const changing = transactions.filter(({ writes }) => writes.includes('insert events'));
      const { lane, writes = [] } = changing[0] ?? {};
      expect(changing).toHaveLength(1);
      expect(writes.slice(-3)).toEqual(['update event_head', 'insert events', 'update event_head']);
      expect(writes.filter((write) => write === 'insert events')).toHaveLength(1);
      // What must not verify any more is not kept waiting by what may.
      expect(lane).toBe(REVOCATIONS.has(row.event) && !row.narrowsNothing ? 'revocation' : 'normal');
      if (!row.repeatable) return;

      await call(deps, secret, path, input);
      expect(await expectChained(deps)).toBe(before + 1);
    });
  }
});
