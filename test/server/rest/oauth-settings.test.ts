import { describe, expect, it } from 'vitest';
import { readOauthSettings } from '../../../server/domain/oauth-settings.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { serveRest } from '../../support/rest.ts';

const PATH = '/v1/instance/oauth_application_settings';
const BUILT_IN = ['openid', 'profile', 'email', 'offline_access'];

describeOnEachDialect('oauthSettings', (dialect) => {
  it('are what COUNTERSIGN_OAUTH_CLIENTS says, where nothing was set', async () => {
    const deps = await openTestDeps(dialect);
    const closed = { registration: 'off', metadataDocuments: 'off', defaultScopes: BUILT_IN };
    expect(await readOauthSettings(deps)).toEqual({
      ...closed,
      accessTokenFormat: 'opaque',
      updatedAt: null,
    });
    const agents = { ...deps, oauthClients: 'mcp' as const };
    expect(await readOauthSettings(agents)).toMatchObject({
      registration: 'open',
      metadataDocuments: 'first_seen',
    });
  });

  it('change one by one, and go back to what they were without', async () => {
    const deps = await openTestDeps(dialect);
    const update = (changes: object) =>
      call(deps, deps.adminKey, 'oauthSettings.update', changes) as Promise<object>;
    const agents = { ...deps, oauthClients: 'mcp' as const };
    expect(await update({ registration: 'off', accessTokenFormat: 'jwt' })).toMatchObject({
      registration: 'off',
      metadataDocuments: 'off',
      accessTokenFormat: 'jwt',
      updatedAt: deps.clock.now,
    });
    expect((await readOauthSettings(agents)).registration).toBe('off');
    await update({ registration: null });
    expect((await readOauthSettings(agents)).registration).toBe('open');
    expect((await readOauthSettings(agents)).accessTokenFormat).toBe('jwt');
    expect(await outcomeOf(update({ defaultScopes: ['nobody:defined'] }))).toBe('invalid_input');
    expect(await outcomeOf(update({ registration: 'maybe' }))).toBe('invalid_input');
  });

  it('are one row, however many change them first', async () => {
    const deps = await openTestDeps(dialect);
    await Promise.all(
      [
        { registration: 'open' },
        { metadataDocuments: 'allow' },
        { accessTokenFormat: 'jwt' },
        { defaultScopes: [] },
      ].map((changes) => call(deps, deps.adminKey, 'oauthSettings.update', changes)),
    );
    expect(await readOauthSettings(deps)).toMatchObject({
      registration: 'open',
      metadataDocuments: 'allow',
      accessTokenFormat: 'jwt',
      defaultScopes: [],
    });
  });
});

describe("Clerk's settings of OAuth applications", () => {
  async function serve() {
    const deps: TestDeps = await openTestDeps('sqlite');
    const { ask } = await serveRest(deps);
    const credential = deps.adminKey;
    return {
      read: () => ask('GET', PATH, { credential }),
      patch: (body: object) => ask('PATCH', PATH, { credential, body }),
      set: (changes: object) => call(deps, deps.adminKey, 'oauthSettings.update', changes),
    };
  }

  it('are read as Clerk has them', async () => {
    const { read } = await serve();
    expect((await read()).body).toEqual({
      object: 'oauth_application_settings',
      dynamic_oauth_client_registration: false,
      default_scopes: BUILT_IN,
      oauth_jwt_access_tokens: false,
      client_id_metadata_documents_advertised: false,
      client_id_metadata_documents_only_allow_pre_registered_clients: false,
      client_id_metadata_documents_block_implicitly_allowed_clients: false,
      registration: 'off',
      metadata_documents: 'off',
      updated_at: null,
    });
  });

  it.each<[object, object, object]>([
    [{}, { dynamic_oauth_client_registration: true }, { registration: 'open' }],
    [{ registration: 'open' }, { dynamic_oauth_client_registration: false }, { registration: 'off' }],
    [
      { registration: 'initial_access_token' },
      { dynamic_oauth_client_registration: true },
      { registration: 'initial_access_token' },
    ],
    [{ registration: 'open' }, { dynamic_oauth_client_registration: null }, { registration: 'open' }],
    [{}, { registration: 'initial_access_token' }, { dynamic_oauth_client_registration: true }],
    [
      {},
      { oauth_jwt_access_tokens: true, default_scopes: ['openid'] },
      { oauth_jwt_access_tokens: true, default_scopes: ['openid'] },
    ],
    [{}, { client_id_metadata_documents_advertised: true }, { metadata_documents: 'first_seen' }],
    [
      { metadataDocuments: 'allow' },
      { client_id_metadata_documents_advertised: true },
      { metadata_documents: 'allow' },
    ],
    [
      { metadataDocuments: 'allow' },
      { client_id_metadata_documents_advertised: false },
      { metadata_documents: 'off' },
    ],
    [
      { metadataDocuments: 'allow' },
      { client_id_metadata_documents_only_allow_pre_registered_clients: true },
      { metadata_documents: 'block' },
    ],
    [
      { metadataDocuments: 'block' },
      { client_id_metadata_documents_only_allow_pre_registered_clients: false },
      { metadata_documents: 'first_seen' },
    ],
    [
      { metadataDocuments: 'allow' },
      { client_id_metadata_documents_block_implicitly_allowed_clients: false },
      { metadata_documents: 'allow' },
    ],
  ])('after %o and %o are %o', async (before, change, after) => {
    const { patch, read, set } = await serve();
    await set(before);
    expect(await patch(change)).toMatchObject({ status: 200, body: after });
    expect((await read()).body).toMatchObject(after);
  });

  it('block nobody wholesale who was let in before', async () => {
    const { patch } = await serve();
    const change = { client_id_metadata_documents_block_implicitly_allowed_clients: true };
    expect(await patch(change)).toMatchObject({
      status: 400,
      body: { errors: [{ meta: { param_name: Object.keys(change)[0] } }] },
    });
  });
});
