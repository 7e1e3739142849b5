import { Badge } from '@mantine/core';
import type { Outputs } from './countersign.ts';

export type ApiKey = Outputs['apiKeys']['list']['data'][number];

export function ApiKeyState({ apiKey: { state, rotateBy } }: { apiKey: ApiKey }) {
  const isOverdue = rotateBy !== null && rotateBy <= Date.now() && state === 'live';
  return (
    <>
      <Badge variant="default">{state}</Badge>{' '}
      {isOverdue && <Badge variant="default">rotation overdue</Badge>}
    </>
  );
}
