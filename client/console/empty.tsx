import { Paper, Stack, Text } from '@mantine/core';
import type { ReactNode } from 'react';

/** A list with nothing in it says what to do next. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Paper withBorder p="xl">
      <Stack align="center" gap="xs">
        <Text fw={600}>{title}</Text>
        <Text size="sm" c="dimmed" ta="center" component="div">
          {children}
        </Text>
      </Stack>
    </Paper>
  );
}
