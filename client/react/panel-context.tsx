/** What the parts of a panel share: where its answers come from, its texts, and how dates are written. */
import { createContext, type ReactNode, useContext, useMemo, useRef } from 'react';
import { CountersignError } from '../../server/errors.ts';
import { createPanelSource, type PanelSource, type PanelSourceOptions } from './panel-source.ts';
import { ENGLISH, type PanelTexts } from './texts.ts';

const SourceContext = createContext<PanelSource | null>(null);
const TextsContext = createContext<PanelTexts>(ENGLISH);

export interface PanelProviderProps extends PanelSourceOptions {
  children: ReactNode;
}

/** Gives panels and hooks below it one source. */
export function PanelProvider({ url, getToken, children }: PanelProviderProps) {
  return <SourceContext.Provider value={useSourceAt({ url, getToken })}>{children}</SourceContext.Provider>;
}

/** Stays the same while the URL does: applications seldom keep a function between two renderings. */
function useSourceAt({ url, getToken }: PanelSourceOptions): PanelSource {
  const latest = useRef(getToken);
  latest.current = getToken;
  const hasToken = getToken !== undefined;
  return useMemo(
    () =>
      createPanelSource({
        url,
        getToken: hasToken ? () => latest.current?.() ?? null : undefined,
      }),
    [url, hasToken],
  );
}

/** That of `PanelProvider`. Throws where there is none. */
export function usePanelSource(): PanelSource {
  const source = useContext(SourceContext);
  if (source) return source;
  throw new CountersignError('invalid_input', "Wanted a 'PanelProvider' above, or 'url', found neither");
}

export const TextsProvider = TextsContext.Provider;
export const useTexts = (): PanelTexts => useContext(TextsContext);

/** What went wrong, in the panel's words. */
export function useFailureText(): (error: unknown) => string {
  const texts = useTexts();
  return (error) =>
    error instanceof CountersignError ? (texts.errors[error.code] ?? error.message) : texts.failed;
}
