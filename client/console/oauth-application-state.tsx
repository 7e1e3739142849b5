import { Badge, Group } from '@mantine/core';
import type { Outputs } from './countersign.ts';

export type OauthApplication = Outputs['oauthApplications']['get'];

/** Where an application comes from, in words. */
export const SOURCES: Record<OauthApplication['source'], string> = {
  administrator: 'entered here',
  registration: 'registered itself',
  metadata_document: 'a document at its URL',
};

export function OauthApplicationState({ application }: { application: OauthApplication }) {
  const { enabled, public: isPublic, unusedUntil } = application;
  return (
    <Group gap={4}>
      <Badge variant="default">{enabled ? 'enabled' : 'disabled'}</Badge>
      <Badge variant="default">{isPublic ? 'public' : 'confidential'}</Badge>
      {unusedUntil !== null && <Badge variant="default">never used</Badge>}
    </Group>
  );
}
