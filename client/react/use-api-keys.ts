/** The API keys of the one who is signed in, page by page. */
import { useCallback, useEffect, useRef, useState } from 'react';
import { usePanelSource } from './panel-context.tsx';
import type { PanelKey, PanelKeyPage } from './panel-source.ts';

export interface UseApiKeysOptions {
  /** A part of the name. */
  query?: string | undefined;
  /** Only those that were revoked or have expired, or only the others; without it, all. */
  ended?: boolean | undefined;
  /** Nothing is asked for while it is false. */
  enabled?: boolean | undefined;
  /** Pages are added to those before, and not shown in their place. */
  infinite?: boolean | undefined;
  initialPage?: number | undefined;
  /** Up to 500. Default: 10. */
  pageSize?: number | undefined;
  /** Shows what was there until what is asked for is. */
  keepPreviousData?: boolean | undefined;
}

export interface ApiKeys {
  data: PanelKey[];
  /** How many there are on all pages, at most 10,000. */
  count: number;
  /** Nothing was there to show yet. */
  isLoading: boolean;
  isFetching: boolean;
  isError: boolean;
  error: unknown;
  page: number;
  pageCount: number;
  fetchPage: (page: number) => void;
  fetchPrevious: () => void;
  fetchNext: () => void;
  hasNextPage: boolean;
  hasPreviousPage: boolean;
  /** Asks again for what is shown. */
  revalidate: () => Promise<void>;
  /** Changes what is shown, before the server is asked. */
  setData: (change: (data: PanelKey[]) => PanelKey[]) => void;
}

interface Shown {
  /** What was asked for, but for the page. */
  question: string;
  pages: Map<number, PanelKeyPage>;
}

const PAGE_SIZE = 10;

export function useApiKeys(options: UseApiKeysOptions = {}): ApiKeys {
  const { query = '', ended, enabled = true, infinite = false, initialPage = 1 } = options;
  const { pageSize = PAGE_SIZE, keepPreviousData = true } = options;
  const source = usePanelSource();
  const question = JSON.stringify([query, ended ?? null, pageSize]);
  const [wanted, setWanted] = useState({ question, page: initialPage });
  const [shown, setShown] = useState<Shown>({ question, pages: new Map() });
  const [state, setState] = useState<{ isFetching: boolean; error: unknown }>({
    isFetching: false,
    error: null,
  });
  // What is asked for otherwise begins with its first page.
  const page = wanted.question === question ? wanted.page : 1;
  const latest = useRef<AbortController | null>(null);

  const fetchPages = useCallback(
    async (from: number, to: number) => {
      latest.current?.abort();
      const asking = new AbortController();
      latest.current = asking;
      setState({ isFetching: true, error: null });
      try {
        const found = new Map<number, PanelKeyPage>();
        for (let each = from; each <= to; each++) {
          const input = {
            limit: pageSize,
            offset: (each - 1) * pageSize,
            ...(query !== '' && { query }),
            ...(ended !== undefined && { ended }),
          };
          found.set(each, await source.list(input, asking.signal));
        }
        setShown((before) => ({
          question,
          pages: new Map([...(infinite && before.question === question ? before.pages : []), ...found]),
        }));
        setState({ isFetching: false, error: null });
      } catch (error) {
        if (!asking.signal.aborted) setState({ isFetching: false, error });
      }
    },
    [source, question, pageSize, query, ended, infinite],
  );

  useEffect(() => {
    if (!enabled) return;
    void fetchPages(page, page);
    return () => latest.current?.abort();
  }, [enabled, page, fetchPages]);

  const isCurrent = shown.question === question;
  const pages = isCurrent || keepPreviousData ? [...shown.pages.entries()].sort(([a], [b]) => a - b) : [];
  const count = pages.at(-1)?.[1].count ?? 0;
  const pageCount = Math.max(1, Math.ceil(count / pageSize));

  // A page that emptied, as by its last key being revoked, leads back to the one before.
  const isBeyond = isCurrent && !state.isFetching && pages.length > 0 && page > pageCount;
  useEffect(() => {
    if (isBeyond) setWanted({ question, page: pageCount });
  }, [isBeyond, question, pageCount]);

  const fetchPage = (asked: number) => setWanted({ question, page: Math.min(Math.max(1, asked), pageCount) });
  return {
    data: pages.flatMap(([, { data }]) => data),
    count,
    isLoading: (pages.length === 0 || isBeyond) && state.error === null && enabled,
    isFetching: state.isFetching,
    isError: state.error !== null,
    error: state.error,
    page,
    pageCount,
    fetchPage,
    fetchPrevious: () => fetchPage(page - 1),
    fetchNext: () => fetchPage(page + 1),
    hasNextPage: page < pageCount,
    hasPreviousPage: page > 1,
    revalidate: () => fetchPages(infinite ? 1 : page, page),
    setData: (change) =>
      setShown(({ pages: before, ...rest }) => ({
        ...rest,
        pages: new Map([...before].map(([number, each]) => [number, { ...each, data: change(each.data) }])),
      })),
  };
}
