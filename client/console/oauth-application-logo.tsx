/** The logo that an OAuth application shows where it asks for consent: an administrator gives it, never whoever runs the application. */
import { Button, FileButton, Group, Image, Stack, Text, Title } from '@mantine/core';
import { useChange } from './change.ts';
import { countersign } from './countersign.ts';
import { Failure } from './failure.tsx';
import type { OauthApplication } from './oauth-application-state.tsx';
import { useMayCall } from './permission.ts';

const NOUN = 'oauthApplications';
const TYPES = 'image/png,image/jpeg,image/webp,image/gif';

export function OauthApplicationLogo({ application }: { application: OauthApplication }) {
  const { id, name, logoUpdatedAt } = application;
  const mayCall = useMayCall();
  const setting = useChange(NOUN, async (file: File) =>
    countersign.oauthLogos.set.mutate({ applicationId: id, content: await base64Of(file) }),
  );
  const deleting = useChange(NOUN, () => countersign.oauthLogos.delete.mutate({ applicationId: id }));
  return (
    <Stack>
      <Title order={3} size="h4">
        Logo
      </Title>
      <Group>
        {logoUpdatedAt === null ? (
          <Text size="sm">None: users see its name alone.</Text>
        ) : (
          <Image
            src={`/oauth/logos/${id}?v=${logoUpdatedAt}`}
            alt={`Logo of ${name}`}
            w={64}
            h={64}
            fit="contain"
          />
        )}
        {mayCall('oauthLogos.set') && (
          <FileButton onChange={(file) => file && setting.mutate(file)} accept={TYPES}>
            {(props) => (
              <Button {...props} size="xs" variant="default" loading={setting.isPending}>
                Choose an image
              </Button>
            )}
          </FileButton>
        )}
        {mayCall('oauthLogos.delete') && logoUpdatedAt !== null && (
          <Button
            size="xs"
            variant="default"
            onClick={() => deleting.mutate(undefined)}
            loading={deleting.isPending}
          >
            Take it away
          </Button>
        )}
      </Group>
      <Failure error={setting.error ?? deleting.error} />
    </Stack>
  );
}

async function base64Of(file: File): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
