/** The applications that the one who is signed in let act for them, page after page. */
import { useCallback, useEffect, useRef, useState } from 'react';
import { usePanelSource } from './panel-context.tsx';
import type { ConnectedApplication } from './panel-source.ts';

export interface ConnectedApplicationsState {
  /** Those of all pages so far; null before the first answer. */
  data: ConnectedApplication[] | null;
  /** Whether the panel may take back what they were allowed. */
  mayRevoke: boolean;
  isFetching: boolean;
  error: unknown;
  hasMore: boolean;
  fetchMore: () => void;
  /** Asks again from the beginning. */
  revalidate: () => void;
}

interface Shown {
  data: ConnectedApplication[] | null;
  mayRevoke: boolean;
  nextCursor: string | null;
}

const NOTHING: Shown = { data: null, mayRevoke: false, nextCursor: null };

export function useConnectedApplications(): ConnectedApplicationsState {
  const source = usePanelSource();
  const [shown, setShown] = useState(NOTHING);
  const [state, setState] = useState<{ isFetching: boolean; error: unknown }>({
    isFetching: false,
    error: null,
  });
  const latest = useRef<AbortController | null>(null);

  const fetchPage = useCallback(
    async (cursor: string | null) => {
      latest.current?.abort();
      const asking = new AbortController();
      latest.current = asking;
      setState({ isFetching: true, error: null });
      try {
        const page = await source.listApplications(cursor === null ? {} : { cursor }, asking.signal);
        setShown(({ data }) => ({
          data: [...(cursor === null ? [] : (data ?? [])), ...page.data],
          mayRevoke: page.mayRevoke,
          nextCursor: page.nextCursor,
        }));
        setState({ isFetching: false, error: null });
      } catch (error) {
        if (!asking.signal.aborted) setState({ isFetching: false, error });
      }
    },
    [source],
  );

  useEffect(() => {
    setShown(NOTHING);
    void fetchPage(null);
    return () => latest.current?.abort();
  }, [fetchPage]);

  const { data, mayRevoke, nextCursor } = shown;
  return {
    data,
    mayRevoke,
    ...state,
    hasMore: nextCursor !== null,
    fetchMore: () => {
      if (nextCursor !== null) void fetchPage(nextCursor);
    },
    revalidate: () => void fetchPage(null),
  };
}
