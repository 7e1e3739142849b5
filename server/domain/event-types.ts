/**
 * Every type of event: when it is appended, and what is sent of it. One row per type; depends on nothing, so that
 * webhook receivers share it. Types in `REVOCATIONS` go ahead of all other deliveries. `docs/events.md` is generated
 * from here.
 */

/** What a field holds. An `instant` is milliseconds since 1970-01-01 UTC. */
type FieldType = `${'string' | 'string[]' | 'number' | 'boolean' | 'instant' | 'object'}${'' | ' | null'}`;

interface EventTypeRow {
  when: string;
  /** The fields of `data` beside those of every event; a name that ends in `?` may be absent. */
  payload: Readonly<Record<string, FieldType>>;
  /** Such an event's `objectId`, `subject` and own fields. */
  example: { readonly objectId: string; readonly subject: string | null; readonly [field: string]: unknown };
}

export const EVENT_TYPES = {
  'installation.created': {
    when: 'The database was set up: first signing key and first secret key were made',
    payload: { signingKeyId: 'string', secretKeyId: 'string' },
    example: {
      objectId: '7b1f0c9e4d2a',
      subject: null,
      signingKeyId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      secretKeyId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
    },
  },
  'installation.master_key_rotated': {
    when: 'Every key was wrapped with another master key',
    payload: {},
    example: { objectId: '7b1f0c9e4d2a', subject: null },
  },
  'installation.pepper_retired': {
    when: 'Every stored hash was wrapped with another pepper, without which none can be checked',
    payload: { retiredVersion: 'number', version: 'number' },
    example: { objectId: '7b1f0c9e4d2a', subject: null, retiredVersion: 1, version: 2 },
  },
  'installation.restored': {
    when: 'The database was restored from a backup: what was of another epoch before is of this one from now on',
    payload: { previousEpoch: 'string', seq: 'number', madeAt: 'instant' },
    example: {
      objectId: '4c2a9e7b1f0d8365',
      subject: null,
      previousEpoch: '7b1f0c9e4d2a',
      seq: 4711,
      madeAt: 1767700800000,
    },
  },
  'machine.created': {
    when: 'A machine was created, with its first secret; perhaps with machines it may call',
    payload: { name: 'string', 'toMachineIds?': 'string[]' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'billing' },
  },
  'machine.imported': {
    when: 'A machine was imported from elsewhere with the secret it has, and what that looks like was registered',
    payload: { name: 'string' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'billing' },
  },
  'machine.updated': {
    when: 'A machine was renamed, or its description, lifetimes, limits, CIDR blocks, rotation policy or right to verify changed',
    payload: { changed: 'string[]' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, changed: ['maxTokenTtlSeconds'] },
  },
  'machine.enabled': {
    when: 'A disabled machine was enabled',
    payload: {},
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null },
  },
  'machine.disabled': {
    when: 'A machine was disabled: it cannot mint, and its tokens do not verify until it is enabled',
    payload: { denyUntil: 'instant | null' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, denyUntil: null },
  },
  'machine.deleted': {
    when: 'A machine was deleted, and with it its secrets, machine scopes and tokens; names the machines it could call',
    payload: { toMachineIds: 'string[]', denyUntil: 'instant | null' },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      toMachineIds: ['mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN'],
      denyUntil: null,
    },
  },
  'machine.tokens_revoked': {
    when: 'All tokens a machine had been issued were revoked; the selector names the machine',
    payload: { selector: 'object', denyUntil: 'instant | null' },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      selector: { machineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'machine.secret_rotated': {
    when: 'A machine was given a new secret; compromised, its tokens were revoked and the selector names the machine',
    payload: {
      name: 'string',
      compromised: 'boolean',
      previousExpiresAt: 'instant | null',
      'selector?': 'object',
      'denyUntil?': 'instant | null',
    },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'billing',
      compromised: true,
      previousExpiresAt: null,
      selector: { machineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'machine.secret_rotation_cancelled': {
    when: 'The new secret of a machine was revoked, the one before stays',
    payload: { name: 'string' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'billing' },
  },
  'machine.secret_rotation_completed': {
    when: 'The old secret of a machine ended before its time',
    payload: { name: 'string' },
    example: { objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'billing' },
  },
  'machine_scope.created': {
    when: 'A machine was allowed to call another',
    payload: { fromMachineId: 'string', toMachineId: 'string', scopes: 'string[]' },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM:mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      subject: null,
      fromMachineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      toMachineId: 'mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      scopes: ['entries:write'],
    },
  },
  'machine_scope.updated': {
    when: 'The scopes allowed between two machines changed; `denyUntil` is there if any was taken away',
    payload: {
      fromMachineId: 'string',
      toMachineId: 'string',
      scopes: 'string[]',
      'denyUntil?': 'instant | null',
    },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM:mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      subject: null,
      fromMachineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      toMachineId: 'mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      scopes: ['entries:write'],
      denyUntil: null,
    },
  },
  'machine_scope.deleted': {
    when: 'A machine may no longer call another',
    payload: {
      fromMachineId: 'string',
      toMachineId: 'string',
      scopes: 'string[]',
      denyUntil: 'instant | null',
    },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM:mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      subject: null,
      fromMachineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      toMachineId: 'mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      scopes: ['entries:write'],
      denyUntil: null,
    },
  },
  'm2m_token.revoked': {
    when: 'One M2M token was revoked',
    payload: {
      machineId: 'string',
      format: 'string',
      expiresAt: 'instant',
      reason: 'string | null',
      denyUntil: 'instant | null',
    },
    example: {
      objectId: 'mt_5f0c6b0e9a2d4c3b8e7f6a5d4c3b2a19',
      subject: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      machineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      format: 'jwt',
      expiresAt: 1_767_704_400_000,
      reason: null,
      denyUntil: 1_767_704_400_000,
    },
  },
  'api_key.created': {
    when: 'An API key was created',
    payload: { name: 'string', 'policyId?': 'string' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      policyId: 'kp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
    },
  },
  'api_key.updated': {
    when: 'An API key was renamed, or its description, scopes, claims, expiry, rate limit, CIDR blocks or rotation policy changed',
    payload: { name: 'string', changed: 'string[]' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      changed: ['scopes'],
    },
  },
  'api_key.credits_changed': {
    when: 'What an API key may spend was set, or is no longer limited',
    payload: { name: 'string', credits: 'object | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      credits: { remaining: 1000 },
    },
  },
  'api_key.enabled': {
    when: 'A disabled API key was enabled',
    payload: { name: 'string' },
    example: { objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a', subject: 'user_42', name: 'export' },
  },
  'api_key.disabled': {
    when: 'An API key was disabled: it does not verify until it is enabled',
    payload: { name: 'string', denyUntil: 'instant | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      denyUntil: null,
    },
  },
  'api_key.revoked': {
    when: 'An API key was revoked for good',
    payload: { name: 'string', reason: 'string | null', denyUntil: 'instant | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      reason: null,
      denyUntil: null,
    },
  },
  'api_key.deleted': {
    when: 'An API key was deleted',
    payload: { name: 'string', denyUntil: 'instant | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      denyUntil: null,
    },
  },
  'api_key.purged': {
    when: 'API keys were deleted that had ended as long ago as their policies keep them listed',
    payload: { count: 'number', selector: 'object' },
    example: {
      objectId: 'api_keys',
      subject: null,
      count: 3,
      selector: { apiKeyIds: ['ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a'] },
    },
  },
  'api_key.secret_rotated': {
    when: 'An API key was given a new value',
    payload: { name: 'string', compromised: 'boolean', previousExpiresAt: 'instant | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      compromised: false,
      previousExpiresAt: 1_767_704_400_000,
    },
  },
  'api_key.secret_rotation_cancelled': {
    when: 'The new value of an API key was revoked, the one before stays',
    payload: { name: 'string' },
    example: { objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a', subject: 'user_42', name: 'export' },
  },
  'api_key.secret_rotation_completed': {
    when: 'The old value of an API key ended before its time',
    payload: { name: 'string' },
    example: { objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a', subject: 'user_42', name: 'export' },
  },
  'key_prefix.created': {
    when: 'A prefix of API keys was registered',
    payload: {},
    example: { objectId: 'acme_', subject: null },
  },
  'key_prefix.deleted': {
    when: 'A prefix of API keys is no longer registered',
    payload: {},
    example: { objectId: 'acme_', subject: null },
  },
  'key_policy.created': {
    when: 'A key policy was created; as the default one, in the place of another',
    payload: { name: 'string', previousDefaultId: 'string | null' },
    example: {
      objectId: 'kp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'standard',
      previousDefaultId: null,
    },
  },
  'key_policy.updated': {
    when: 'What API keys may be under a key policy changed, or which policy is the default one',
    payload: { name: 'string', changed: 'string[]', previousDefaultId: 'string | null' },
    example: {
      objectId: 'kp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'standard',
      changed: ['liveKeysMax'],
      previousDefaultId: null,
    },
  },
  'key_policy.deleted': {
    when: 'A key policy was deleted; its keys keep what they have',
    payload: { name: 'string' },
    example: { objectId: 'kp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'standard' },
  },
  'panel_issuer.created': {
    when: "An application's own session tokens let its users manage their API keys from now on",
    payload: { issuer: 'string' },
    example: {
      objectId: 'pis_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      issuer: 'https://login.example.com',
    },
  },
  'panel_issuer.deleted': {
    when: "An application's session tokens let nobody in any more",
    payload: { issuer: 'string' },
    example: {
      objectId: 'pis_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      issuer: 'https://login.example.com',
    },
  },
  'oauth_application.created': {
    when: 'An OAuth application was created',
    payload: { name: 'string' },
    example: { objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'Notes' },
  },
  'oauth_application.updated': {
    when: 'What an OAuth application is called, may ask for or is given changed; tokens it has keep what they have',
    payload: { name: 'string', changed: 'string[]' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      changed: ['redirectUris'],
    },
  },
  'oauth_application.enabled': {
    when: 'A disabled OAuth application was enabled',
    payload: { name: 'string' },
    example: { objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'Notes' },
  },
  'oauth_application.disabled': {
    when: 'An OAuth application was disabled: it is given no tokens, and those it has do not verify until it is enabled',
    payload: { name: 'string', denyUntil: 'instant | null' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      denyUntil: null,
    },
  },
  'oauth_application.deleted': {
    when: 'An OAuth application was deleted, and with it its secrets, grants and tokens',
    payload: { name: 'string', denyUntil: 'instant | null' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      denyUntil: null,
    },
  },
  'oauth_application.tokens_revoked': {
    when: 'All grants and tokens an OAuth application had been given were revoked; the selector names the application',
    payload: { name: 'string', selector: 'object', denyUntil: 'instant | null' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      selector: { applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'oauth_application.secret_rotated': {
    when: 'An OAuth application was given a new secret; compromised, its grants and tokens were revoked and the selector names it',
    payload: {
      name: 'string',
      compromised: 'boolean',
      previousExpiresAt: 'instant | null',
      'selector?': 'object',
      'denyUntil?': 'instant | null',
    },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      compromised: true,
      previousExpiresAt: null,
      selector: { applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'oauth_application.secret_rotation_cancelled': {
    when: 'The new secret of an OAuth application was revoked, the one before stays',
    payload: { name: 'string' },
    example: { objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'Notes' },
  },
  'oauth_application.secret_rotation_completed': {
    when: 'The old secret of an OAuth application ended before its time',
    payload: { name: 'string' },
    example: { objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'Notes' },
  },
  'oauth_application.registered': {
    when: 'An application registered itself; it goes after a day unless a user allows it something',
    payload: { name: 'string', redirectHosts: 'string[]', initialAccessTokenId: 'string | null' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      redirectHosts: ['notes.example.com'],
      initialAccessTokenId: null,
    },
  },
  'oauth_application.first_seen': {
    when: 'An application whose client id is the URL of its metadata document was let in for the first time; it goes after a day unless a user allows it something',
    payload: { name: 'string', clientId: 'string', redirectHosts: 'string[]' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'Notes',
      clientId: 'https://notes.example.com/oauth-client.json',
      redirectHosts: ['notes.example.com'],
    },
  },
  'oauth_application.purged': {
    when: 'Applications were deleted that had come unasked, and that nobody used in time',
    payload: { count: 'number', selector: 'object' },
    example: {
      objectId: 'oauth_applications',
      subject: null,
      count: 3,
      selector: { applicationIds: ['oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM'] },
    },
  },
  'oauth_settings.updated': {
    when: 'Who may come unasked as an OAuth application changed, or what those are given of which nothing else is said',
    payload: { changed: 'string[]', registration: 'string', metadataDocuments: 'string' },
    example: {
      objectId: 'oauth_settings',
      subject: null,
      changed: ['registration'],
      registration: 'open',
      metadataDocuments: 'first_seen',
    },
  },
  'initial_access_token.created': {
    when: 'A token was made with which applications may register themselves',
    payload: { name: 'string', uses: 'number', expiresAt: 'instant' },
    example: {
      objectId: 'iat_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'partner onboarding',
      uses: 10,
      expiresAt: 1_767_704_400_000,
    },
  },
  'initial_access_token.revoked': {
    when: 'Nobody registers with a token any more; applications that did go on',
    payload: { name: 'string' },
    example: { objectId: 'iat_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, name: 'partner onboarding' },
  },
  'oauth_scope.created': {
    when: 'A scope of OAuth was defined',
    payload: { resource: 'string | null' },
    example: { objectId: 'notes:read', subject: null, resource: null },
  },
  'oauth_scope.updated': {
    when: 'What a scope of OAuth is described by, whether it is advertised, or the resource it belongs to changed',
    payload: { changed: 'string[]' },
    example: { objectId: 'notes:read', subject: null, changed: ['description'] },
  },
  'oauth_scope.deleted': {
    when: 'A scope of OAuth is no longer there to be given; tokens that have it keep it',
    payload: {},
    example: { objectId: 'notes:read', subject: null },
  },
  'oauth_consent.given': {
    when: 'A user let an OAuth application act for them, within scopes',
    payload: { applicationId: 'string', scopes: 'string[]', 'organizationId?': 'string' },
    example: {
      objectId: 'gnt_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_42',
      applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      scopes: ['notes:read'],
    },
  },
  'oauth_consent.withdrawn': {
    when: 'What a user had allowed an OAuth application was taken back: every grant and token under it was revoked; the selector names both',
    payload: { applicationId: 'string', selector: 'object', denyUntil: 'instant | null' },
    example: {
      objectId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_42',
      applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      selector: { subject: 'user_42', applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'oauth_grant.created': {
    when: 'An OAuth application got its first tokens under a grant of a user',
    payload: { applicationId: 'string', scopes: 'string[]' },
    example: {
      objectId: 'gnt_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_42',
      applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      scopes: ['notes:read'],
    },
  },
  'oauth_grant.revoked': {
    when: 'A grant was revoked with every token under it, by somebody or because a code or refresh token was used twice',
    payload: {
      applicationId: 'string',
      reason: 'string | null',
      selector: 'object',
      denyUntil: 'instant | null',
    },
    example: {
      objectId: 'gnt_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_42',
      applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      reason: 'refresh_token_reused',
      selector: { grantId: 'gnt_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'oauth_token.revoked': {
    when: 'One OAuth access token was revoked',
    payload: {
      applicationId: 'string',
      format: 'string',
      expiresAt: 'instant',
      reason: 'string | null',
      denyUntil: 'instant | null',
    },
    example: {
      objectId: 'oat_019b1f0c6b0e9a2d4c3b8e7f6a5d4c3b',
      subject: 'user_42',
      applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      format: 'opaque',
      expiresAt: 1_767_704_400_000,
      reason: null,
      denyUntil: 1_767_704_400_000,
    },
  },
  'user.invited': {
    when: 'A link was made by which somebody becomes a user, or a user sets a new password',
    payload: { userId: 'string | null' },
    example: { objectId: 'inv_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, userId: null },
  },
  'user.uninvited': {
    when: 'A link that nobody had used was taken back',
    payload: { userId: 'string | null' },
    example: { objectId: 'inv_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, userId: null },
  },
  'user.created': {
    when: 'Somebody became a user: by an invitation, or by signing in at another issuer for the first time',
    payload: { source: 'string' },
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      source: 'local',
    },
  },
  'user.updated': {
    when: 'What is known of a user changed: by an administrator, or as the issuer they sign in at says',
    payload: { changed: 'string[]' },
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      changed: ['name'],
    },
  },
  'user.password_set': {
    when: 'A user set another password; their sessions ended',
    payload: {},
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
    },
  },
  'user.enabled': {
    when: 'A user may sign in again, and access tokens that act for them are accepted again',
    payload: {},
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
    },
  },
  'user.disabled': {
    when: 'A user was signed out and may not sign in; no access token that acts for them is accepted',
    payload: { selector: 'object', denyUntil: 'instant | null' },
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      selector: { subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'user.deleted': {
    when: 'A user was deleted with their sessions and consents; every grant of theirs was revoked',
    payload: { selector: 'object', denyUntil: 'instant | null' },
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      selector: { subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'user_session.ended': {
    when: 'Sessions of a user were ended, by an administrator or by the user: one, or all of them',
    payload: { 'sessionId?': 'string' },
    example: {
      objectId: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: 'user_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      sessionId: 'uss_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
    },
  },
  'operator_session.ended': {
    when: 'An administrator ended a session of the console',
    payload: { secretKeyId: 'string' },
    example: {
      objectId: 'ses_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      secretKeyId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
    },
  },
  'api_keys.imported': {
    when: 'API keys were imported by their hashes, or what imported values look like was registered',
    payload: { count: 'number', shapes: 'number' },
    example: { objectId: 'api_keys', subject: null, count: 3, shapes: 1 },
  },
  'subject.updated': {
    when: 'What all API keys of a subject share changed: their rate limit',
    payload: { changed: 'string[]' },
    example: { objectId: 'user_42', subject: 'user_42', changed: ['rateLimit'] },
  },
  'subject.enabled': {
    when: 'A disabled subject was enabled',
    payload: {},
    example: { objectId: 'user_42', subject: 'user_42' },
  },
  'subject.disabled': {
    when: 'A subject was disabled: none of its API keys, and no OAuth token that acts for it, verifies until it is enabled',
    payload: { selector: 'object', denyUntil: 'instant | null' },
    example: { objectId: 'user_42', subject: 'user_42', selector: { subject: 'user_42' }, denyUntil: null },
  },
  'subject.credits_changed': {
    when: 'What all API keys of a subject may spend together was set, or is no longer limited',
    payload: { credits: 'object | null' },
    example: { objectId: 'user_42', subject: 'user_42', credits: { remaining: 1000 } },
  },
  'subject.api_keys_revoked': {
    when: 'All API keys of a subject, or all that somebody made for it, were revoked; the selector names them',
    payload: { selector: 'object', count: 'number', 'reason?': 'string | null', denyUntil: 'instant | null' },
    example: {
      objectId: 'user_42',
      subject: 'user_42',
      selector: { subject: 'user_42' },
      count: 3,
      reason: null,
      denyUntil: null,
    },
  },
  'subject.oauth_grants_revoked': {
    when: 'All that a user had allowed OAuth applications was taken back: every grant and token was revoked; the selector names the user',
    payload: { selector: 'object', count: 'number', denyUntil: 'instant | null' },
    example: {
      objectId: 'user_42',
      subject: 'user_42',
      selector: { subject: 'user_42' },
      count: 3,
      denyUntil: null,
    },
  },
  'secret_key.created': {
    when: 'A secret key was created',
    payload: { name: 'string', role: 'string' },
    example: { objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0', subject: null, name: 'ci', role: 'read' },
  },
  'secret_key.updated': {
    when: 'A secret key was renamed, or its rotation policy changed',
    payload: { name: 'string', role: 'string', changed: 'string[]' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      name: 'ci',
      role: 'read',
      changed: ['rotation'],
    },
  },
  'secret_key.revoked': {
    when: 'A secret key was revoked',
    payload: { name: 'string', role: 'string', denyUntil: 'instant | null' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      name: 'ci',
      role: 'read',
      denyUntil: null,
    },
  },
  'secret_key.secret_rotated': {
    when: 'A secret key was given a new value',
    payload: { name: 'string', role: 'string', compromised: 'boolean', previousExpiresAt: 'instant | null' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      name: 'ci',
      role: 'read',
      compromised: false,
      previousExpiresAt: 1_767_704_400_000,
    },
  },
  'secret_key.secret_rotation_cancelled': {
    when: 'The new value of a secret key was revoked, the one before stays',
    payload: { name: 'string', role: 'string' },
    example: { objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0', subject: null, name: 'ci', role: 'read' },
  },
  'secret_key.secret_rotation_completed': {
    when: 'The old value of a secret key ended before its time',
    payload: { name: 'string', role: 'string' },
    example: { objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0', subject: null, name: 'ci', role: 'read' },
  },
  'signing_key.created': {
    when: 'An upcoming signing key was created, and published in the JWKS',
    payload: { alg: 'string' },
    example: { objectId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, alg: 'ES256' },
  },
  'signing_key.activated': {
    when: 'An upcoming signing key signs from now on; the one that did is retiring',
    payload: { alg: 'string', previousKid: 'string | null' },
    example: { objectId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, alg: 'ES256', previousKid: null },
  },
  'signing_key.retired': {
    when: 'A signing key left the JWKS, the last token it signed having expired',
    payload: { alg: 'string' },
    example: { objectId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, alg: 'ES256' },
  },
  'signing_key.emergency_retired': {
    when: 'A signing key was retired at once, and with it every token it signed; the selector names the key',
    payload: {
      alg: 'string',
      reason: 'string | null',
      successorKid: 'string | null',
      selector: 'object',
      denyUntil: 'instant | null',
    },
    example: {
      objectId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      alg: 'ES256',
      reason: null,
      successorKid: 'key_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
      selector: { signingKeyId: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM' },
      denyUntil: null,
    },
  },
  'api_key.expiring': {
    when: 'An API key expires within 7 days, or within 1: `daysLeft` says how many are left, rounded up',
    payload: { expiresAt: 'instant', daysLeft: 'number' },
    example: {
      objectId: 'ak_4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e',
      subject: 'user_42',
      expiresAt: 1_798_761_600_000,
      daysLeft: 7,
    },
  },
  'api_key.expired': {
    when: 'An API key has expired',
    payload: { expiresAt: 'instant' },
    example: {
      objectId: 'ak_4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e',
      subject: 'user_42',
      expiresAt: 1_798_761_600_000,
    },
  },
  'secret_key.expiring': {
    when: 'A secret key expires within 7 days, or within 1: `daysLeft` says how many are left, rounded up',
    payload: { expiresAt: 'instant', daysLeft: 'number' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      expiresAt: 1_798_761_600_000,
      daysLeft: 1,
    },
  },
  'secret_key.expired': {
    when: 'A secret key has expired',
    payload: { expiresAt: 'instant' },
    example: { objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0', subject: null, expiresAt: 1_798_761_600_000 },
  },
  'machine.rotation_due': {
    when: 'The secret of a machine is due for rotation within 7 days, within 1, or overdue: then again every 7 days',
    payload: { rotateBy: 'instant', daysLeft: 'number', isOverdue: 'boolean', atDeadline: 'string' },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      rotateBy: 1_798_761_600_000,
      daysLeft: 7,
      isOverdue: false,
      atDeadline: 'warn',
    },
  },
  'machine.secret_expired': {
    when: 'The secret of a machine was overdue for rotation and expired, as its policy has it; its tokens live on',
    payload: { name: 'string', rotateBy: 'instant', denyUntil: 'instant | null' },
    example: {
      objectId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      name: 'billing',
      rotateBy: 1_798_761_600_000,
      denyUntil: null,
    },
  },
  'api_key.rotation_due': {
    when: 'The value of an API key is due for rotation within 7 days, within 1, or overdue: then again every 7 days',
    payload: { rotateBy: 'instant', daysLeft: 'number', isOverdue: 'boolean', atDeadline: 'string' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      rotateBy: 1_798_761_600_000,
      daysLeft: 7,
      isOverdue: false,
      atDeadline: 'warn',
    },
  },
  'api_key.secret_expired': {
    when: 'The value of an API key was overdue for rotation and expired, as its policy has it',
    payload: { name: 'string', rotateBy: 'instant', denyUntil: 'instant | null' },
    example: {
      objectId: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
      subject: 'user_42',
      name: 'export',
      rotateBy: 1_798_761_600_000,
      denyUntil: null,
    },
  },
  'secret_key.rotation_due': {
    when: 'The value of a secret key is due for rotation within 7 days, within 1, or overdue: then again every 7 days',
    payload: { rotateBy: 'instant', daysLeft: 'number', isOverdue: 'boolean', atDeadline: 'string' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      rotateBy: 1_798_761_600_000,
      daysLeft: 7,
      isOverdue: false,
      atDeadline: 'warn',
    },
  },
  'secret_key.secret_expired': {
    when: 'The value of a secret key was overdue for rotation and expired, as its policy has it',
    payload: { name: 'string', role: 'string', rotateBy: 'instant', denyUntil: 'instant | null' },
    example: {
      objectId: 'sk_9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      subject: null,
      name: 'ci',
      role: 'read',
      rotateBy: 1_798_761_600_000,
      denyUntil: null,
    },
  },
  'job.requested': {
    when: 'Somebody asked for a scheduled job to run at once',
    payload: {},
    example: { objectId: 'expiry-sweep', subject: null },
  },
  'log.checkpoint': {
    when: 'What the log was at an instant was signed: whoever keeps `checkpoint` finds out if it is cut or rewritten',
    payload: { seq: 'number', hash: 'string', kid: 'string', checkpoint: 'string' },
    example: {
      objectId: '7b1f0c9e4d2a',
      subject: null,
      seq: 1200,
      hash: '5f0c3a1e9b7d2468ace013579bdf2468ace013579bdf2468ace013579bdf0123',
      kid: 'key_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      checkpoint: 'eyJ0eXAiOiJjb3VudGVyc2lnbi1jaGVja3BvaW50K2p3dCJ9.eyJzZXEiOjEyMDB9.c2ln',
    },
  },
  'log.pruned': {
    when: 'Events whose retention is over were deleted; the chain begins after `seq`, whose hash is `hash`',
    payload: { seq: 'number', hash: 'string' },
    example: {
      objectId: 'events',
      subject: null,
      seq: 900,
      hash: '5f0c3a1e9b7d2468ace013579bdf2468ace013579bdf2468ace013579bdf0123',
    },
  },
  'webhook_endpoint.created': {
    when: 'A webhook endpoint was created',
    payload: { host: 'string' },
    example: { objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, host: 'receiver.example' },
  },
  'webhook_endpoint.updated': {
    when: 'What is sent to a webhook endpoint, or where to, changed',
    payload: { host: 'string', changed: 'string[]' },
    example: {
      objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      host: 'receiver.example',
      changed: ['eventTypes'],
    },
  },
  'webhook_endpoint.enabled': {
    when: 'A disabled webhook endpoint was enabled: what is still owed to it is sent',
    payload: { host: 'string' },
    example: { objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, host: 'receiver.example' },
  },
  'webhook_endpoint.disabled': {
    when: 'A webhook endpoint was disabled, by an operator, because it answered 410, or because it did nothing but fail for five days',
    payload: { host: 'string', reason: 'string' },
    example: {
      objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      host: 'receiver.example',
      reason: 'gone',
    },
  },
  'webhook_endpoint.secret_rotated': {
    when: 'A webhook endpoint was given a new signing secret',
    payload: { host: 'string', previousExpiresAt: 'instant | null' },
    example: {
      objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      host: 'receiver.example',
      previousExpiresAt: 1_767_704_400_000,
    },
  },
  'webhook_endpoint.test': {
    when: 'A test was sent to a webhook endpoint; no other endpoint is sent it',
    payload: { host: 'string' },
    example: { objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, host: 'receiver.example' },
  },
  'webhook_endpoint.deleted': {
    when: 'A webhook endpoint was deleted',
    payload: { host: 'string' },
    example: { objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM', subject: null, host: 'receiver.example' },
  },
  'delivery.resent': {
    when: 'A delivery was put back, to be sent once more',
    payload: { endpointId: 'string', eventSeq: 'number' },
    example: {
      objectId: 'dlv_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      endpointId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      eventSeq: 17,
    },
  },
  'delivery.replayed': {
    when: 'Deliveries of an endpoint or a time were put back, to be sent once more',
    payload: {
      'endpointId?': 'string',
      'from?': 'instant',
      'to?': 'instant',
      which: 'string',
      count: 'number',
    },
    example: {
      objectId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      subject: null,
      endpointId: 'ep_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
      from: 1_767_700_800_000,
      to: 1_767_704_400_000,
      which: 'dead',
      count: 3,
    },
  },
} as const satisfies Record<`${string}.${string}`, EventTypeRow>;

export type EventType = keyof typeof EVENT_TYPES;

type ValueOf<F> = F extends `${infer Some} | null`
  ? ValueOf<Some> | null
  : F extends 'string'
    ? string
    : F extends 'string[]'
      ? string[]
      : F extends 'boolean'
        ? boolean
        : F extends 'object'
          ? Record<string, unknown>
          : number;

type FieldsOf<P> = { [N in keyof P as N extends `${string}?` ? never : N]: ValueOf<P[N]> } & {
  [N in keyof P as N extends `${infer Name}?` ? Name : never]?: ValueOf<P[N]>;
};

/** What kinds of principals cause events. */
export const ACTOR_KINDS = [
  'secret_key',
  'machine',
  'end_user',
  'user',
  'oauth_application',
  'system',
] as const;

export type ActorKind = (typeof ACTOR_KINDS)[number];

/** What every event says of itself. */
export interface EventData {
  eventId: string;
  /** Its place in the log: gap-free, in the order of commits. Deliveries may arrive in another. */
  sequence: number;
  /** The id of the thing changed; for a cascade, what its selector names. */
  objectId: string;
  /** On whose behalf the changed credential acts. */
  subject: string | null;
  actor: { kind: ActorKind };
  /** Only where the event has more data than a webhook may hold: then its own fields are left out. */
  truncated?: true;
}

/** A webhook's payload, told apart by `type`. */
export type WebhookEvent = {
  [T in EventType]: {
    type: T;
    /** When it happened, by RFC 3339. */
    timestamp: string;
    data: EventData & FieldsOf<(typeof EVENT_TYPES)[T]['payload']>;
  };
}[EventType];

/** Events after which something that verified before must not verify any more. */
export const REVOCATIONS: ReadonlySet<EventType> = new Set([
  'machine.updated',
  'machine.disabled',
  'machine.deleted',
  'machine.tokens_revoked',
  'machine.secret_rotated',
  'machine.secret_rotation_cancelled',
  'machine.secret_rotation_completed',
  'machine.secret_expired',
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
  'api_key.secret_expired',
  'subject.updated',
  'subject.disabled',
  'subject.credits_changed',
  'subject.api_keys_revoked',
  'subject.oauth_grants_revoked',
  'secret_key.revoked',
  'secret_key.secret_rotated',
  'secret_key.secret_rotation_cancelled',
  'secret_key.secret_rotation_completed',
  'secret_key.secret_expired',
  'signing_key.emergency_retired',
  'oauth_application.disabled',
  'oauth_application.deleted',
  'oauth_application.tokens_revoked',
  'oauth_application.secret_rotated',
  'oauth_application.secret_rotation_cancelled',
  'oauth_application.secret_rotation_completed',
  'oauth_consent.withdrawn',
  'oauth_grant.revoked',
  'oauth_token.revoked',
  'user.disabled',
  'user.deleted',
] satisfies EventType[]);
