import type { Principal, Role } from './deps.ts';

/** Whom a procedure lets in: secret keys by role, machines by their own secret, end users by a panel token or session. */
export type Who = Role | 'machine' | 'end_user';

const ADMIN: readonly Who[] = ['admin'];
const READERS: readonly Who[] = ['admin', 'read'];
const ISSUERS: readonly Who[] = ['admin', 'issuer'];
const ISSUERS_AND_READERS: readonly Who[] = ['admin', 'issuer', 'read'];
const TOKEN_READERS: readonly Who[] = ['admin', 'issuer', 'read', 'machine'];
const TOKEN_REVOKERS: readonly Who[] = ['admin', 'issuer', 'machine'];
const VERIFIERS: readonly Who[] = ['admin', 'verify', 'machine'];
const KEYS: readonly Who[] = ['admin', 'issuer', 'interaction', 'read', 'verify'];
const HOSTS: readonly Who[] = ['admin', 'issuer', 'interaction'];
/** Whoever may say who a user is; no issuer may. */
const INTERACTORS: readonly Who[] = ['admin', 'interaction'];
const END_USERS: readonly Who[] = ['end_user'];
const FOLLOWERS: readonly Who[] = ['admin', 'read', 'verify', 'machine'];

/**
 * Who may call what, on every transport. A procedure that is not here may be called by nobody. What a machine may see
 * of the procedures that let it in is its own; the domain sees to that.
 */
export const ACCESS = {
  'machines.create': ADMIN,
  // It registers what callers' credentials may look like.
  'machines.import': ADMIN,
  'machines.get': READERS,
  'machines.getOwn': ['machine'],
  'machines.list': READERS,
  'machines.update': ADMIN,
  'machines.enable': ADMIN,
  'machines.disable': ADMIN,
  'machines.rotateSecret': ISSUERS,
  'machines.rotateOwnSecret': ['machine'],
  'machines.cancelRotation': ISSUERS,
  'machines.completeRotation': ISSUERS,
  'machines.delete': ADMIN,
  'machineScopes.create': ADMIN,
  'machineScopes.list': READERS,
  'machineScopes.update': ADMIN,
  'machineScopes.delete': ADMIN,
  'm2mTokens.create': ['machine'],
  'm2mTokens.get': TOKEN_READERS,
  'm2mTokens.list': TOKEN_READERS,
  'm2mTokens.revoke': TOKEN_REVOKERS,
  'm2mTokens.revokeByValue': TOKEN_REVOKERS,
  'm2mTokens.revokeAll': TOKEN_REVOKERS,
  'oauthTokens.get': ISSUERS_AND_READERS,
  'oauthTokens.list': ISSUERS_AND_READERS,
  'oauthTokens.verify': VERIFIERS,
  'oauthTokens.revoke': ISSUERS,
  'oauthTokens.revokeByValue': ISSUERS,
  'apiKeys.create': ISSUERS,
  // It registers what values may look like, for all subjects, and so is no issuer's.
  'apiKeys.import': ADMIN,
  'apiKeys.get': ISSUERS_AND_READERS,
  'apiKeys.list': ISSUERS_AND_READERS,
  'apiKeys.update': ISSUERS,
  'apiKeys.setCredits': ISSUERS,
  'apiKeys.enable': ISSUERS,
  'apiKeys.disable': ISSUERS,
  'apiKeys.rotate': ISSUERS,
  'apiKeys.cancelRotation': ISSUERS,
  'apiKeys.completeRotation': ISSUERS,
  'apiKeys.revoke': ISSUERS,
  'apiKeys.revokeByValue': ISSUERS,
  'apiKeys.revokeAll': ISSUERS,
  'apiKeys.delete': ISSUERS,
  'keyPrefixes.create': ADMIN,
  'keyPrefixes.list': READERS,
  'keyPrefixes.delete': ADMIN,
  'keyPolicies.create': ADMIN,
  'keyPolicies.get': ISSUERS_AND_READERS,
  'keyPolicies.list': ISSUERS_AND_READERS,
  'keyPolicies.update': ADMIN,
  'keyPolicies.delete': ADMIN,
  'overview.get': READERS,
  'panelTokens.create': HOSTS,
  'panelIssuers.create': ADMIN,
  'panelIssuers.list': READERS,
  'panelIssuers.delete': ADMIN,
  // Which of these an end user may call is their panel's to say; the domain sees to that.
  'panelKeys.options': END_USERS,
  'panelKeys.list': END_USERS,
  'panelKeys.create': END_USERS,
  'panelKeys.update': END_USERS,
  'panelKeys.rotate': END_USERS,
  'panelKeys.completeRotation': END_USERS,
  'panelKeys.revoke': END_USERS,
  'panelKeys.usage': END_USERS,
  'panelGrants.list': END_USERS,
  'panelGrants.revoke': END_USERS,
  'subjects.get': ISSUERS_AND_READERS,
  'subjects.list': ISSUERS_AND_READERS,
  'subjects.set': ISSUERS,
  'subjects.setCredits': ISSUERS,
  'subjects.enable': ISSUERS,
  'subjects.disable': ISSUERS,
  'signInLinks.issue': KEYS,
  'operatorSessions.list': READERS,
  'operatorSessions.end': ADMIN,
  'interactions.get': INTERACTORS,
  'interactions.complete': INTERACTORS,
  'interactions.deny': INTERACTORS,
  'users.list': READERS,
  'users.get': READERS,
  'users.invite': ADMIN,
  'users.update': ADMIN,
  'users.enable': ADMIN,
  'users.disable': ADMIN,
  'users.delete': ADMIN,
  'userInvitations.list': READERS,
  'userInvitations.delete': ADMIN,
  'userSessions.list': READERS,
  'userSessions.end': ADMIN,
  // Of a hand-off, whoever signs users in signs them out; the domain sees to that.
  'userSessions.endAll': INTERACTORS,
  'credentials.verify': VERIFIERS,
  'credentials.verifyBatch': VERIFIERS,
  'oauthApplications.create': ADMIN,
  'oauthApplications.get': ISSUERS_AND_READERS,
  'oauthApplications.list': ISSUERS_AND_READERS,
  'oauthApplications.update': ADMIN,
  'oauthApplications.enable': ADMIN,
  'oauthApplications.disable': ADMIN,
  'oauthApplications.rotateSecret': ADMIN,
  'oauthApplications.cancelRotation': ADMIN,
  'oauthApplications.completeRotation': ADMIN,
  'oauthApplications.revokeTokens': ADMIN,
  'oauthApplications.delete': ADMIN,
  'oauthScopes.create': ADMIN,
  'oauthScopes.list': KEYS,
  'oauthScopes.update': ADMIN,
  'oauthScopes.delete': ADMIN,
  'oauthGrants.get': ISSUERS_AND_READERS,
  'oauthGrants.list': ISSUERS_AND_READERS,
  'oauthGrants.revoke': ISSUERS,
  'oauthGrants.withdraw': ISSUERS,
  'oauthGrants.revokeAll': ISSUERS,
  'oauthSettings.get': READERS,
  'oauthSettings.update': ADMIN,
  'oauthLogos.set': ADMIN,
  'oauthLogos.delete': ADMIN,
  'initialAccessTokens.create': ADMIN,
  'initialAccessTokens.list': READERS,
  'initialAccessTokens.revoke': ADMIN,
  'secretKeys.create': ADMIN,
  'secretKeys.list': READERS,
  'secretKeys.update': ADMIN,
  'secretKeys.rotate': ADMIN,
  'secretKeys.cancelRotation': ADMIN,
  'secretKeys.completeRotation': ADMIN,
  'secretKeys.revoke': ADMIN,
  'signingKeys.create': ADMIN,
  'signingKeys.list': READERS,
  'signingKeys.activate': ADMIN,
  'signingKeys.retire': ADMIN,
  'signingKeys.emergencyRetire': ADMIN,
  'webhookEndpoints.create': ADMIN,
  'webhookEndpoints.get': READERS,
  'webhookEndpoints.list': READERS,
  'webhookEndpoints.update': ADMIN,
  'webhookEndpoints.enable': ADMIN,
  'webhookEndpoints.disable': ADMIN,
  'webhookEndpoints.rotateSecret': ADMIN,
  'webhookEndpoints.test': ADMIN,
  'webhookEndpoints.delete': ADMIN,
  'deliveries.list': READERS,
  'deliveries.get': READERS,
  'deliveries.resend': ADMIN,
  'deliveries.replay': ADMIN,
  'events.list': READERS,
  'usage.ofApiKeys': ISSUERS_AND_READERS,
  'usage.ofSubjects': ISSUERS_AND_READERS,
  'usage.report': VERIFIERS,
  'jobs.list': READERS,
  'jobs.run': ADMIN,
} as const satisfies Record<string, readonly Who[]>;

/** The same for what is reached over HTTP and is no procedure. */
const HTTP_ACCESS = {
  'metrics.read': READERS,
  'queues.read': ADMIN,
  'feed.follow': FOLLOWERS,
  'oauth.introspect': VERIFIERS,
} as const satisfies Record<string, readonly Who[]>;

const ALL = new Map<string, readonly Who[]>(Object.entries({ ...ACCESS, ...HTTP_ACCESS }));

/** Whom a procedure, or what is reached over HTTP, lets in. */
export const whoMayCall = (path: string): readonly Who[] => ALL.get(path) ?? [];

export function mayCall(principal: Principal, path: string): boolean {
  const who = whoMayCall(path);
  switch (principal.kind) {
    case 'secret_key':
      return who.includes(principal.role);
    case 'machine':
      return who.includes('machine');
    case 'end_user':
      return who.includes('end_user');
    case 'user':
    case 'oauth_application':
    case 'system':
      return false;
  }
}
