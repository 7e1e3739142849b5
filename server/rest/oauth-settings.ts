/** The settings of OAuth: Clerk's wire, with what ours have beyond. */
import { z } from 'zod';
import { scopes } from '../domain/fields.ts';
import {
  type OauthSettings,
  readOauthSettings,
  updateOauthSettings,
  updateOauthSettingsInput,
} from '../domain/oauth-settings.ts';
import { CountersignError } from '../errors.ts';
import { at, named, nothing } from './fields.ts';
import { type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';

const settingsOutput = named(
  'OAuthApplicationSettings',
  z.object({
    object: z.literal('oauth_application_settings'),
    dynamic_oauth_client_registration: z.boolean(),
    default_scopes: z.array(z.string()).nullable(),
    oauth_jwt_access_tokens: z.boolean(),
    client_id_metadata_documents_advertised: z.boolean(),
    client_id_metadata_documents_only_allow_pre_registered_clients: z.boolean(),
    client_id_metadata_documents_block_implicitly_allowed_clients: z.boolean(),
    registration: z.enum(['off', 'initial_access_token', 'open']),
    metadata_documents: z.enum(['off', 'block', 'first_seen', 'allow']),
    updated_at: at.nullable(),
  }),
);

/** Clerk's; null, as there, changes nothing. */
const clerkInput = z.strictObject({
  dynamicOauthClientRegistration: z.boolean().nullish(),
  defaultScopes: scopes.nullish(),
  oauthJwtAccessTokens: z.boolean().nullish(),
  clientIdMetadataDocumentsAdvertised: z.boolean().nullish(),
  clientIdMetadataDocumentsOnlyAllowPreRegisteredClients: z.boolean().nullish(),
  clientIdMetadataDocumentsBlockImplicitlyAllowedClients: z.boolean().nullish(),
});

const updateInput = clerkInput.extend({
  registration: updateOauthSettingsInput.shape.registration,
  metadataDocuments: updateOauthSettingsInput.shape.metadataDocuments,
});

export const oauthSettingsRoutes: readonly Route[] = [
  route('GET /v1/instance/oauth_application_settings', 'oauthSettings.get', {
    clerk,
    input: nothing,
    output: settingsOutput,
    run: async ({ deps }) => present(await readOauthSettings(deps)),
  }),
  route('PATCH /v1/instance/oauth_application_settings', 'oauthSettings.update', {
    clerk,
    input: updateInput,
    output: settingsOutput,
    async run({ deps, caller }, input) {
      const changes = changesOf(await readOauthSettings(deps), input);
      return present(await updateOauthSettings(deps, caller, changes));
    },
  }),
];

/** Clerk's switches as our settings; what they leave open stays what it is. */
function changesOf(
  now: OauthSettings,
  input: z.output<typeof updateInput>,
): z.output<typeof updateOauthSettingsInput> {
  const { oauthJwtAccessTokens: areJwts } = input;
  const registration = input.registration ?? registrationOf(now.registration, input);
  const metadataDocuments = input.metadataDocuments ?? documentsOf(now.metadataDocuments, input);
  return {
    ...(registration !== now.registration && { registration }),
    ...(metadataDocuments !== now.metadataDocuments && { metadataDocuments }),
    ...(isSet(input.defaultScopes) && { defaultScopes: input.defaultScopes }),
    ...(isSet(areJwts) && { accessTokenFormat: areJwts ? ('jwt' as const) : ('opaque' as const) }),
  };
}

const isSet = <T>(value: T): value is NonNullable<T> => value !== null && value !== undefined;

function registrationOf(
  now: OauthSettings['registration'],
  { dynamicOauthClientRegistration: isOn }: z.output<typeof updateInput>,
): OauthSettings['registration'] {
  if (!isSet(isOn)) return now;
  if (!isOn) return 'off';
  return now === 'off' ? 'open' : now;
}

function documentsOf(
  now: OauthSettings['metadataDocuments'],
  input: z.output<typeof updateInput>,
): OauthSettings['metadataDocuments'] {
  if (input.clientIdMetadataDocumentsBlockImplicitlyAllowedClients)
    throw new CountersignError(
      'invalid_input',
      "Cannot save settings: wanted 'clientIdMetadataDocumentsBlockImplicitlyAllowedClients' to be false: disable those applications, or advertise no documents",
      { field: 'clientIdMetadataDocumentsBlockImplicitlyAllowedClients' },
    );
  const isAdvertised = input.clientIdMetadataDocumentsAdvertised ?? now !== 'off';
  if (!isAdvertised) return 'off';
  const onlyKnown = input.clientIdMetadataDocumentsOnlyAllowPreRegisteredClients ?? now === 'block';
  if (onlyKnown) return 'block';
  return now === 'allow' ? 'allow' : 'first_seen';
}

const present = (settings: OauthSettings) => ({
  object: 'oauth_application_settings' as const,
  dynamic_oauth_client_registration: settings.registration !== 'off',
  default_scopes: settings.defaultScopes,
  oauth_jwt_access_tokens: settings.accessTokenFormat === 'jwt',
  client_id_metadata_documents_advertised: settings.metadataDocuments !== 'off',
  client_id_metadata_documents_only_allow_pre_registered_clients: settings.metadataDocuments === 'block',
  client_id_metadata_documents_block_implicitly_allowed_clients: false,
  registration: settings.registration,
  metadata_documents: settings.metadataDocuments,
  updated_at: settings.updatedAt,
});
