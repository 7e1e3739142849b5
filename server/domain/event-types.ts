/**
 * Every type of event, and when it is appended. One row per type; depends on nothing, so that webhook receivers
 * share it. Types in `REVOCATIONS` go ahead of all other deliveries.
 */
export const EVENT_TYPES = {
  'installation.created': 'The database was set up: first signing key and first secret key were made',
  'installation.master_key_rotated': 'Every key was wrapped with another master key',
  'installation.pepper_retired':
    'Every stored hash was wrapped with another pepper, without which none can be checked',
  'machine.created': 'A machine was created, with its first secret',
  'machine.updated':
    'A machine was renamed, or its description, lifetimes, limits, CIDR blocks or right to verify changed',
  'machine.enabled': 'A disabled machine was enabled',
  'machine.disabled':
    'A machine was disabled: it cannot mint, and its tokens do not verify until it is enabled',
  'machine.deleted': 'A machine was deleted, and with it its secrets, machine scopes and tokens',
  'machine.tokens_revoked':
    'All tokens a machine had been issued were revoked; the selector names the machine',
  'machine.secret_rotated':
    'A machine was given a new secret; compromised, its tokens were revoked and the selector names the machine',
  'machine.secret_rotation_cancelled': 'The new secret of a machine was revoked, the one before stays',
  'machine.secret_rotation_completed': 'The old secret of a machine ended before its time',
  'machine_scope.created': 'A machine was allowed to call another',
  'machine_scope.updated': 'The scopes allowed between two machines changed',
  'machine_scope.deleted': 'A machine may no longer call another',
  'm2m_token.revoked': 'One M2M token was revoked',
  'api_key.created': 'An API key was created',
  'api_key.updated':
    'An API key was renamed, or its description, scopes, claims, expiry, rate limit or CIDR blocks changed',
  'api_key.credits_changed': 'What an API key may spend was set, or is no longer limited',
  'api_key.enabled': 'A disabled API key was enabled',
  'api_key.disabled': 'An API key was disabled: it does not verify until it is enabled',
  'api_key.revoked': 'An API key was revoked for good',
  'api_key.deleted': 'An API key was deleted',
  'api_key.purged': 'API keys were deleted that had ended as long ago as their policies keep them listed',
  'api_key.secret_rotated': 'An API key was given a new value',
  'api_key.secret_rotation_cancelled': 'The new value of an API key was revoked, the one before stays',
  'api_key.secret_rotation_completed': 'The old value of an API key ended before its time',
  'key_prefix.created': 'A prefix of API keys was registered',
  'key_prefix.deleted': 'A prefix of API keys is no longer registered',
  'key_policy.created': 'A key policy was created; as the default one, in the place of another',
  'key_policy.updated': 'What API keys may be under a key policy changed, or which policy is the default one',
  'key_policy.deleted': 'A key policy was deleted; its keys keep what they have',
  'api_keys.imported':
    'API keys were imported by their hashes, or what imported values look like was registered',
  'subject.updated': 'What all API keys of a subject share changed: their rate limit',
  'subject.enabled': 'A disabled subject was enabled',
  'subject.disabled': 'A subject was disabled: none of its API keys verifies until it is enabled',
  'subject.credits_changed':
    'What all API keys of a subject may spend together was set, or is no longer limited',
  'subject.api_keys_revoked':
    'All API keys of a subject, or all that somebody made for it, were revoked; the selector names them',
  'secret_key.created': 'A secret key was created',
  'secret_key.revoked': 'A secret key was revoked',
  'secret_key.secret_rotated': 'A secret key was given a new value',
  'secret_key.secret_rotation_cancelled': 'The new value of a secret key was revoked, the one before stays',
  'secret_key.secret_rotation_completed': 'The old value of a secret key ended before its time',
  'signing_key.created': 'An upcoming signing key was created, and published in the JWKS',
  'signing_key.activated': 'An upcoming signing key signs from now on; the one that did is retiring',
  'signing_key.retired': 'A signing key left the JWKS, the last token it signed having expired',
  'signing_key.emergency_retired':
    'A signing key was retired at once, and with it every token it signed; the selector names the key',
  'webhook_endpoint.created': 'A webhook endpoint was created',
  'webhook_endpoint.deleted': 'A webhook endpoint was deleted',
} as const satisfies Record<`${string}.${string}`, string>;

export type EventType = keyof typeof EVENT_TYPES;

/** Events after which something that verified before must not verify any more. */
export const REVOCATIONS: ReadonlySet<EventType> = new Set([
  'machine.updated',
  'machine.disabled',
  'machine.deleted',
  'machine.tokens_revoked',
  'machine.secret_rotated',
  'machine.secret_rotation_cancelled',
  'machine.secret_rotation_completed',
  'machine_scope.updated',
  'machine_scope.deleted',
  'm2m_token.revoked',
  'api_key.updated',
  'api_key.credits_changed',
  'api_key.disabled',
  'api_key.revoked',
  'api_key.deleted',
  'api_key.secret_rotated',
  'api_key.secret_rotation_cancelled',
  'api_key.secret_rotation_completed',
  'subject.updated',
  'subject.disabled',
  'subject.credits_changed',
  'subject.api_keys_revoked',
  'secret_key.revoked',
  'secret_key.secret_rotated',
  'secret_key.secret_rotation_cancelled',
  'secret_key.secret_rotation_completed',
  'signing_key.emergency_retired',
] satisfies EventType[]);
