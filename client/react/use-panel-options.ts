/** What the one who is signed in may do here, and may choose for a new key. */
import { useCallback, useEffect, useState } from 'react';
import { usePanelSource } from './panel-context.tsx';
import type { PanelOptions } from './panel-source.ts';

export interface PanelOptionsState {
  options: PanelOptions | null;
  error: unknown;
  revalidate: () => void;
}

export function usePanelOptions(): PanelOptionsState {
  const source = usePanelSource();
  const [state, setState] = useState<Pick<PanelOptionsState, 'options' | 'error'>>({
    options: null,
    error: null,
  });
  const [asked, setAsked] = useState(0);

  // biome-ignore lint/correctness/useExhaustiveDependencies: what is asked again is the same
  useEffect(() => {
    const asking = new AbortController();
    source.options(asking.signal).then(
      (options) => setState({ options, error: null }),
      (error: unknown) => {
        if (!asking.signal.aborted) setState((before) => ({ ...before, error }));
      },
    );
    return () => asking.abort();
  }, [source, asked]);

  const revalidate = useCallback(() => setAsked((before) => before + 1), []);
  return { ...state, revalidate };
}
