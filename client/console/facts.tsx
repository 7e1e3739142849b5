import { Text } from '@mantine/core';
import type { ReactNode } from 'react';

/** What is known of one thing, name by name. */
export function Facts({ facts }: { facts: Record<string, ReactNode> }) {
  return (
    <dl
      style={{
        display: 'grid',
        gridTemplateColumns: 'repeat(auto-fit, minmax(min(100%, 15rem), 1fr))',
        gap: '0.75rem',
        margin: 0,
      }}
    >
      {Object.entries(facts).map(([name, fact]) => (
        <div key={name}>
          <Text component="dt" size="xs" c="dimmed">
            {name}
          </Text>
          <Text component="dd" size="sm" m={0} style={{ overflowWrap: 'anywhere' }}>
            {fact}
          </Text>
        </div>
      ))}
    </dl>
  );
}
