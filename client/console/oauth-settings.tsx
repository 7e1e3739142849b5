/** What holds for all OAuth applications: who may come unasked, and what is given where nothing is said. */
import { Button, Group, NativeSelect, Stack, Title } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import type { FormEvent } from 'react';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { Failure } from './failure.tsx';
import { InitialAccessTokens } from './initial-access-tokens.tsx';
import { ScopesInput } from './oauth-scopes.tsx';
import { useMayCall } from './permission.ts';

type Settings = Outputs['oauthSettings']['get'];

const NOUN = 'oauthSettings';

const REGISTRATION: Record<Settings['registration'], string> = {
  off: 'Nobody: applications are entered here',
  initial_access_token: 'Whoever has an initial access token',
  open: 'Everybody, public applications only, and users are always asked',
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
  const { updatedAt: _, ...initial } = settings;
  const form = useForm({ initialValues: initial });
  const mayUpdate = useMayCall()('oauthSettings.update');
  const saving = useChange(NOUN, (input: Parameters<typeof save>[0]) => save(input));
  function submit(event: FormEvent) {
    event.preventDefault();
    saving.mutate(form.values);
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
          data={choicesOf(REGISTRATION)}
          disabled={!mayUpdate}
        />
        <NativeSelect
          label="Applications that are known by a document at their URL"
          {...form.getInputProps('metadataDocuments')}
          data={choicesOf(METADATA_DOCUMENTS)}
          disabled={!mayUpdate}
        />
        <ScopesInput
          label="Default scopes"
          description="What an application is given that asks for none, and has none of its own"
          {...form.getInputProps('defaultScopes')}
          disabled={!mayUpdate}
        />
        <NativeSelect
          label="Format of access tokens"
          description="Of applications that nobody gave another"
          {...form.getInputProps('accessTokenFormat')}
          data={choicesOf(FORMATS)}
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

const save = (input: Omit<Settings, 'updatedAt'>) => countersign.oauthSettings.update.mutate(input);

const choicesOf = (words: Record<string, string>) =>
  Object.entries(words).map(([value, label]) => ({ value, label }));
