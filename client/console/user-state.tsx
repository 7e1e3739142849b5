import { Badge, Group } from '@mantine/core';
import type { Outputs } from './countersign.ts';

export type User = Outputs['users']['get'];

/** The source of those who have a password at this server. */
export const LOCAL = 'local';

/** What to call somebody: the name they sign in with, or what their issuer says. */
export const nameOf = ({ source, sourceSubject, name, email }: User) =>
  source === LOCAL ? sourceSubject : (name ?? email ?? sourceSubject);

export function UserState({ user: { enabled } }: { user: User }) {
  return (
    <Group gap={4}>
      <Badge variant="default">{enabled ? 'enabled' : 'disabled'}</Badge>
    </Group>
  );
}
