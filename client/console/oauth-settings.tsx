/** What holds for all OAuth applications: who may come unasked, and what is given where nothing is said. */
import { Button, Group, NativeSelect, Stack, Switch, Title } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import type { FormEvent } from 'react';
import { useChange } from './change.ts';
import { countersign, type Inputs, type Outputs } from './countersign.ts';
import { Failure } from './failure.tsx';
import { InitialAccessTokens } from './initial-access-tokens.tsx';
import { ScopesInput } from './oauth-scopes.tsx';
import { useMayCall } from './permission.ts';

type Settings = Outputs['oauthSettings']['get'];

type Changes = Inputs['oauthSettings']['update'];

/** Empty, and of a list null, for what holds where nothing is set. */
interface Entered {
  registration: Settings['registration'] | '';
  metadataDocuments: Settings['metadataDocuments'] | '';
  defaultScopes: string[] | null;
  accessTokenFormat: Settings['accessTokenFormat'] | '';
}

const enteredOf = ({ updatedAt: _, ...settings }: Settings): Entered => settings;

const NOUN = 'oauthSettings';

const REGISTRATION: Record<Settings['registration'], string> = {
  off: 'Nobody: applications are entered here',
  initial_access_token: 'Whoever has an initial access token',
  open: 'Everybody, and users are always asked',
};

const METADATA_DOCUMENTS: Record<Settings['metadataDocuments'], string> = {
  off: 'None',
  block: 'Those that were seen before, and no new ones',
  first_seen: 'New ones too, as long as they lead where they did at first',
  allow: 'All, whatever becomes of their documents',
};

const FORMATS: Record<Settings['accessTokenFormat'], string> = {
  opaque: 'Opaque: whoever is called asks this server',
  jwt: 'JWT (RFC 9068): whoever is called may check it by itself',
};

export function OauthSettings() {
  const settings = useQuery({
    queryKey: [NOUN],
    queryFn: () => countersign.oauthSettings.get.query(),
  });
  return (
    <Stack gap="xl">
      <Failure error={settings.error} onRetry={settings.refetch} />
      {settings.data && <SettingsForm key={settings.data.updatedAt} settings={settings.data} />}
      <InitialAccessTokens />
    </Stack>
  );
}

function SettingsForm({ settings }: { settings: Settings }) {
  const form = useForm({ initialValues: enteredOf(settings) });
  const { defaultScopes } = form.values;
  const mayUpdate = useMayCall()('oauthSettings.update');
  const saving = useChange(NOUN, (input: Changes) => countersign.oauthSettings.update.mutate(input));
  function submit(event: FormEvent) {
    event.preventDefault();
    saving.mutate(changesOf(form));
  }
  return (
    <form onSubmit={submit}>
      <Stack maw={640}>
        <Title order={2} size="h4">
          Settings
        </Title>
        <NativeSelect
          label="Who may register an application (RFC 7591)"
          {...form.getInputProps('registration')}
          data={[BY_WORD, ...choicesOf(REGISTRATION)]}
          disabled={!mayUpdate}
        />
        <NativeSelect
          label="Applications that are known by a document at their URL"
          {...form.getInputProps('metadataDocuments')}
          data={[BY_WORD, ...choicesOf(METADATA_DOCUMENTS)]}
          disabled={!mayUpdate}
        />
        <Switch
          label="Default scopes of this server's own"
          checked={defaultScopes !== null}
          onChange={({ currentTarget }) =>
            form.setFieldValue('defaultScopes', currentTarget.checked ? settings.defaultScopes : null)
          }
          disabled={!mayUpdate}
        />
        {defaultScopes !== null && (
          <ScopesInput
            label="Default scopes"
            description="What an application is given that asks for none, and has none of its own"
            value={defaultScopes}
            onChange={(chosen) => form.setFieldValue('defaultScopes', chosen)}
            disabled={!mayUpdate}
          />
        )}
        <NativeSelect
          label="Format of access tokens"
          description="Of applications that nobody gave another"
          {...form.getInputProps('accessTokenFormat')}
          data={[{ value: '', label: 'As the server has it by default' }, ...choicesOf(FORMATS)]}
          disabled={!mayUpdate}
        />
        <Failure error={saving.error} />
        {mayUpdate && (
          <Group>
            <Button type="submit" disabled={!form.isDirty()} loading={saving.isPending}>
              Save
            </Button>
          </Group>
        )}
      </Stack>
    </form>
  );
}

/** Only what is chosen: whatever else would be fixed too, and COUNTERSIGN_OAUTH_CLIENTS say nothing of it any more. */
const changesOf = (form: ReturnType<typeof useForm<Entered>>): Changes =>
  Object.fromEntries(
    Object.entries(form.values)
      .filter(([name]) => form.isDirty(name as keyof Entered))
      .map(([name, value]) => [name, value === '' ? null : value]),
  );

const BY_WORD = { value: '', label: 'As COUNTERSIGN_OAUTH_CLIENTS says' };

const choicesOf = (words: Record<string, string>) =>
  Object.entries(words).map(([value, label]) => ({ value, label }));
