import { Badge, Group } from '@mantine/core';
import type { Outputs } from './countersign.ts';

export type Machine = Outputs['machines']['get'];

export function MachineState({ machine: { enabled, rotateBy } }: { machine: Machine }) {
  const isOverdue = rotateBy !== null && rotateBy <= Date.now();
  return (
    <Group gap={4}>
      <Badge variant="default">{enabled ? 'enabled' : 'disabled'}</Badge>
      {isOverdue && <Badge variant="default">rotation overdue</Badge>}
    </Group>
  );
}
