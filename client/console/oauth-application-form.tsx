/** What is entered of an OAuth application, when it is created and when it is changed. */
import { Accordion, Checkbox, Group, NativeSelect, Stack, Switch, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useChange } from './change.ts';
import { countersign, type Inputs } from './countersign.ts';
import { DurationInput } from './duration.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import type { OauthApplication } from './oauth-application-state.tsx';
import { ScopesInput } from './oauth-scopes.tsx';

type CreateInput = Omit<Inputs['oauthApplications']['create'], 'idempotencyKey'>;

/** What it may ask for tokens with, in words. */
export const GRANT_TYPES = {
  authorization_code: 'Users allow it to act for them (authorization code)',
  refresh_token: 'It goes on when they are away (refresh tokens)',
  client_credentials: 'It acts for itself (client credentials)',
} as const satisfies Partial<Record<OauthApplication['grantTypes'][number], string>>;

type Entered = Pick<
  OauthApplication,
  | 'name'
  | 'public'
  | 'redirectUris'
  | 'scopes'
  | 'defaultScopes'
  | 'consentRequired'
  | 'pkceRequired'
  | 'accessTokenTtlSeconds'
  | 'refreshTokenIdleSeconds'
  | 'refreshTokenMaxSeconds'
  | 'codeTtlSeconds'
> & {
  description: string;
  clientUri: string;
  grantTypes: string[];
  audiences: string[];
  /** Of a new one, empty for what the settings say. */
  accessTokenFormat: OauthApplication['accessTokenFormat'] | '';
};

/** What the server takes where nothing is said. */
const BLANK: Entered = {
  name: '',
  description: '',
  clientUri: '',
  public: false,
  redirectUris: [],
  grantTypes: ['authorization_code', 'refresh_token'],
  scopes: ['openid', 'profile', 'email', 'offline_access'],
  defaultScopes: null,
  audiences: [],
  consentRequired: true,
  pkceRequired: true,
  accessTokenFormat: '',
  accessTokenTtlSeconds: 3600,
  refreshTokenIdleSeconds: 90 * 86_400,
  refreshTokenMaxSeconds: null,
  codeTtlSeconds: 60,
};

const enteredOf = (application: OauthApplication): Entered => ({
  name: application.name,
  description: application.description ?? '',
  clientUri: application.clientUri ?? '',
  public: application.public,
  redirectUris: application.redirectUris,
  grantTypes: application.grantTypes,
  scopes: application.scopes,
  defaultScopes: application.defaultScopes,
  audiences: application.audiences ?? [],
  consentRequired: application.consentRequired,
  pkceRequired: application.pkceRequired,
  accessTokenFormat: application.accessTokenFormat,
  accessTokenTtlSeconds: application.accessTokenTtlSeconds,
  refreshTokenIdleSeconds: application.refreshTokenIdleSeconds,
  refreshTokenMaxSeconds: application.refreshTokenMaxSeconds,
  codeTtlSeconds: application.codeTtlSeconds,
});

/** A public application has PKCE whatever is entered. */
const inputOf = ({ accessTokenFormat, ...entered }: Entered): CreateInput => ({
  ...entered,
  ...(accessTokenFormat !== '' && { accessTokenFormat }),
  name: entered.name.trim(),
  description: entered.description.trim() || null,
  clientUri: entered.clientUri.trim() || null,
  grantTypes: entered.grantTypes as NonNullable<CreateInput['grantTypes']>,
  audiences: entered.audiences.length === 0 ? null : entered.audiences,
  pkceRequired: entered.public || entered.pkceRequired,
});

export function CreateOauthApplication({
  onDone,
  onCancel,
}: {
  /** Told the client secret; null for a public application, which has none. */
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const creating = useChange(
    'oauthApplications',
    (entered: Entered) => countersign.oauthApplications.create.mutate(inputOf(entered)),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <OauthApplicationForm
      initial={BLANK}
      isNew
      action={creating}
      onSubmit={creating.mutate}
      onCancel={onCancel}
    />
  );
}

export function EditOauthApplication({
  application,
  onDone,
}: {
  application: OauthApplication;
  onDone: () => void;
}) {
  const saving = useChange(
    'oauthApplications',
    (entered: Entered) =>
      countersign.oauthApplications.update.mutate({ id: application.id, ...inputOf(entered) }),
    onDone,
  );
  return (
    <OauthApplicationForm
      initial={enteredOf(application)}
      isNew={false}
      action={saving}
      onSubmit={saving.mutate}
      onCancel={onDone}
    />
  );
}

type Form = ReturnType<typeof useForm<Entered>>;

function OauthApplicationForm({
  initial,
  isNew,
  action,
  onSubmit,
  onCancel,
}: {
  initial: Entered;
  isNew: boolean;
  action: { isPending: boolean; error: unknown };
  onSubmit: (entered: Entered) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: initial });
  const { name, grantTypes, redirectUris } = form.values;
  const hasWayBack = redirectUris.length > 0 || !grantTypes.includes('authorization_code');
  return (
    <DialogForm
      action={action}
      label={isNew ? 'Create' : 'Save'}
      isReady={name.trim() !== '' && grantTypes.length > 0 && hasWayBack}
      onSubmit={() => onSubmit(form.values)}
      onCancel={onCancel}
    >
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus required />
      <TextInput
        label="Description"
        description="Shown to administrators"
        {...form.getInputProps('description')}
        autoComplete="off"
      />
      <TextInput
        label="Home page"
        placeholder="https://app.example.com"
        {...form.getInputProps('clientUri')}
        autoComplete="off"
      />
      <Kind form={form} wasConfidential={!isNew && !initial.public} />
      <Grants form={form} />
      <ListInput
        label="Redirect URIs"
        description="Where users come back to: exactly these, but for the port of http on 127.0.0.1, [::1] and localhost"
        {...form.getInputProps('redirectUris')}
      />
      <ScopesInput
        label="Scopes"
        description="What its tokens may be asked for with"
        {...form.getInputProps('scopes')}
      />
      <More form={form} />
    </DialogForm>
  );
}

function Kind({ form, wasConfidential }: { form: Form; wasConfidential: boolean }) {
  return (
    <NativeSelect
      label="Kind"
      description={wasConfidential && form.values.public ? 'Its client secrets end with this' : null}
      value={form.values.public ? 'public' : 'confidential'}
      onChange={({ currentTarget }) => {
        const isPublic = currentTarget.value === 'public';
        form.setFieldValue('public', isPublic);
        if (isPublic) form.setFieldValue('grantTypes', withoutOwn(form.values.grantTypes));
      }}
      data={[
        { value: 'confidential', label: 'Confidential: it runs on a server, and keeps a secret' },
        { value: 'public', label: 'Public: a page, or on its user’s device, and can keep none' },
      ]}
    />
  );
}

/** Whoever has no secret cannot prove who they are, and so acts for nobody by themselves. */
const withoutOwn = (grantTypes: readonly string[]) =>
  grantTypes.filter((each) => each !== 'client_credentials');

function Grants({ form }: { form: Form }) {
  return (
    <Checkbox.Group label="How it gets tokens" {...form.getInputProps('grantTypes')}>
      <Stack gap="xs" mt="xs">
        {Object.entries(GRANT_TYPES).map(([value, label]) => (
          <Checkbox
            key={value}
            value={value}
            label={label}
            disabled={form.values.public && value === 'client_credentials'}
          />
        ))}
      </Stack>
    </Checkbox.Group>
  );
}

function More({ form }: { form: Form }) {
  const { public: isPublic, defaultScopes, scopes } = form.values;
  return (
    <Accordion variant="contained">
      <Accordion.Item value="consent">
        <Accordion.Control>Consent and proof</Accordion.Control>
        <Accordion.Panel>
          <Stack>
            <Switch
              label="Users are asked whether they allow it"
              {...form.getInputProps('consentRequired', { type: 'checkbox' })}
            />
            <Switch
              label="PKCE is required"
              description="A public application needs it always"
              {...form.getInputProps('pkceRequired', { type: 'checkbox' })}
              checked={isPublic || form.values.pkceRequired}
              disabled={isPublic}
            />
            <Switch
              label="Scopes of its own where it asks for none"
              checked={defaultScopes !== null}
              onChange={(event) =>
                form.setFieldValue('defaultScopes', event.currentTarget.checked ? scopes : null)
              }
            />
            {defaultScopes !== null && (
              <ScopesInput
                label="Default scopes"
                description="What it is given where it names none"
                value={defaultScopes}
                onChange={(chosen) => form.setFieldValue('defaultScopes', chosen)}
              />
            )}
          </Stack>
        </Accordion.Panel>
      </Accordion.Item>
      <Accordion.Item value="tokens">
        <Accordion.Control>Tokens</Accordion.Control>
        <Accordion.Panel>
          <Tokens form={form} />
        </Accordion.Panel>
      </Accordion.Item>
    </Accordion>
  );
}

function Tokens({ form }: { form: Form }) {
  const { accessTokenTtlSeconds, refreshTokenIdleSeconds, refreshTokenMaxSeconds, codeTtlSeconds } =
    form.values;
  return (
    <Stack>
      <NativeSelect
        label="Format of access tokens"
        {...form.getInputProps('accessTokenFormat')}
        data={[
          ...(form.getInitialValues().accessTokenFormat === ''
            ? [{ value: '', label: 'As the settings say' }]
            : []),
          { value: 'opaque', label: 'Opaque: whoever is called asks this server' },
          { value: 'jwt', label: 'JWT (RFC 9068): whoever is called may check it by itself' },
        ]}
      />
      <ListInput
        label="Resources"
        description="URLs that its tokens may be for (RFC 8707); none entered for any"
        {...form.getInputProps('audiences')}
      />
      <DurationInput
        label="Lifetime of an access token"
        value={accessTokenTtlSeconds}
        onChange={(seconds) => form.setFieldValue('accessTokenTtlSeconds', seconds ?? 3600)}
      />
      <DurationInput
        label="A refresh token ends unused after"
        value={refreshTokenIdleSeconds}
        onChange={(seconds) => form.setFieldValue('refreshTokenIdleSeconds', seconds ?? 90 * 86_400)}
      />
      <DurationInput
        label="Users are asked again after"
        description="However often it was refreshed; empty for never"
        value={refreshTokenMaxSeconds}
        onChange={(seconds) => form.setFieldValue('refreshTokenMaxSeconds', seconds)}
      />
      <Group grow>
        <DurationInput
          label="Lifetime of a code"
          value={codeTtlSeconds}
          onChange={(seconds) => form.setFieldValue('codeTtlSeconds', seconds ?? 60)}
        />
      </Group>
    </Stack>
  );
}
