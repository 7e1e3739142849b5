/**
 * The procedures that are called by tRPC, by path: what the client is made from at run time, where there is no router to
 * ask. `m2mTokens.create`, `credentials.verify` and its batch are not here: they have a faster way (`/v1`).
 * `repeatable` says that a call may be sent again when it is unknown whether it was carried out; queries are by nature.
 */
export const PROCEDURES = {
  'machines.create': { type: 'mutation', repeatable: false },
  'machines.get': { type: 'query', repeatable: true },
  'machines.list': { type: 'query', repeatable: true },
  'machines.update': { type: 'mutation', repeatable: true },
  'machines.enable': { type: 'mutation', repeatable: true },
  'machines.disable': { type: 'mutation', repeatable: true },
  'machines.rotateSecret': { type: 'mutation', repeatable: false },
  'machines.rotateOwnSecret': { type: 'mutation', repeatable: false },
  'machines.cancelRotation': { type: 'mutation', repeatable: false },
  'machines.completeRotation': { type: 'mutation', repeatable: false },
  'machines.delete': { type: 'mutation', repeatable: false },
  'machineScopes.create': { type: 'mutation', repeatable: false },
  'machineScopes.list': { type: 'query', repeatable: true },
  'machineScopes.update': { type: 'mutation', repeatable: true },
  'machineScopes.delete': { type: 'mutation', repeatable: false },
  'm2mTokens.get': { type: 'query', repeatable: true },
  'm2mTokens.list': { type: 'query', repeatable: true },
  'm2mTokens.revoke': { type: 'mutation', repeatable: true },
  'm2mTokens.revokeByValue': { type: 'mutation', repeatable: true },
  'm2mTokens.revokeAll': { type: 'mutation', repeatable: false },
  'apiKeys.create': { type: 'mutation', repeatable: false },
  'apiKeys.get': { type: 'query', repeatable: true },
  'apiKeys.list': { type: 'query', repeatable: true },
  'apiKeys.update': { type: 'mutation', repeatable: true },
  'apiKeys.enable': { type: 'mutation', repeatable: true },
  'apiKeys.disable': { type: 'mutation', repeatable: true },
  'apiKeys.rotate': { type: 'mutation', repeatable: false },
  'apiKeys.cancelRotation': { type: 'mutation', repeatable: false },
  'apiKeys.completeRotation': { type: 'mutation', repeatable: false },
  'apiKeys.revoke': { type: 'mutation', repeatable: true },
  'apiKeys.revokeByValue': { type: 'mutation', repeatable: true },
  'apiKeys.revokeAll': { type: 'mutation', repeatable: true },
  'apiKeys.delete': { type: 'mutation', repeatable: false },
  'secretKeys.create': { type: 'mutation', repeatable: false },
  'secretKeys.list': { type: 'query', repeatable: true },
  'secretKeys.rotate': { type: 'mutation', repeatable: false },
  'secretKeys.cancelRotation': { type: 'mutation', repeatable: false },
  'secretKeys.completeRotation': { type: 'mutation', repeatable: false },
  'secretKeys.revoke': { type: 'mutation', repeatable: true },
  'signingKeys.create': { type: 'mutation', repeatable: false },
  'signingKeys.list': { type: 'query', repeatable: true },
  'signingKeys.activate': { type: 'mutation', repeatable: true },
  'signingKeys.retire': { type: 'mutation', repeatable: true },
  'signingKeys.emergencyRetire': { type: 'mutation', repeatable: true },
  'webhookEndpoints.create': { type: 'mutation', repeatable: false },
  'webhookEndpoints.list': { type: 'query', repeatable: true },
  'webhookEndpoints.delete': { type: 'mutation', repeatable: false },
  'deliveries.list': { type: 'query', repeatable: true },
  'events.list': { type: 'query', repeatable: true },
} as const satisfies Record<string, Procedure>;

export interface Procedure {
  type: 'query' | 'mutation';
  repeatable: boolean;
}
