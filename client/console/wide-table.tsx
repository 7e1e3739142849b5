import { Table } from '@mantine/core';
import type { ReactNode } from 'react';

/** A table that may be wider than its page: with nothing in it to go to, a keyboard scrolls it none the less. */
export function WideTable({ minWidth, children }: { minWidth: number; children: ReactNode }) {
  return (
    <Table.ScrollContainer minWidth={minWidth} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table>{children}</Table>
    </Table.ScrollContainer>
  );
}
