/** Lists page by page, by cursor. The server counts nothing, so there is a next page and one before, and no last. */
import { Button, Group, Text } from '@mantine/core';
import { useState } from 'react';

export interface Paging {
  cursor: string | undefined;
  /** From 1. */
  page: number;
  goOn(nextCursor: string): void;
  goBack(): void;
}

/** `list` says which list it is: another one, as after another search, begins at its first page. */
export function usePaging(list: string): Paging {
  const [place, setPlace] = useState<{ list: string; cursors: string[] }>({ list, cursors: [] });
  const cursors = place.list === list ? place.cursors : [];
  return {
    cursor: cursors.at(-1),
    page: cursors.length + 1,
    goOn: (nextCursor) => setPlace({ list, cursors: [...cursors, nextCursor] }),
    goBack: () => setPlace({ list, cursors: cursors.slice(0, -1) }),
  };
}

export function Pages({
  paging,
  nextCursor,
  isLoading = false,
  isEmpty = false,
}: {
  paging: Paging;
  nextCursor: string | null;
  isLoading?: boolean;
  /** Whether nothing was found so far: a search that no index answers looks at some thousands at a time. */
  isEmpty?: boolean;
}) {
  if (paging.page === 1 && nextCursor === null) return null;
  const isSearchingOn = isEmpty && nextCursor !== null;
  return (
    <Group component="nav" aria-label="Pages" gap="xs">
      <Button size="xs" variant="default" onClick={paging.goBack} disabled={paging.page === 1}>
        Previous
      </Button>
      <Text size="sm" aria-live="polite">
        {isSearchingOn ? 'None among those looked at so far: “Next” looks further' : `Page ${paging.page}`}
      </Text>
      <Button
        size="xs"
        variant="default"
        onClick={() => nextCursor !== null && paging.goOn(nextCursor)}
        disabled={nextCursor === null}
        loading={isLoading}
      >
        Next
      </Button>
    </Group>
  );
}
