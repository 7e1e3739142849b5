/** Something that is done once at a time, and may fail. */
import { useRef, useState } from 'react';

export interface Action {
  run: () => void;
  isRunning: boolean;
  error: unknown;
}

export function useAction<T>(work: () => Promise<T>, onDone: (value: T) => void): Action {
  const [state, setState] = useState<Omit<Action, 'run'>>({ isRunning: false, error: null });
  // A second press comes before the first has rendered.
  const running = useRef(false);

  async function start() {
    if (running.current) return;
    running.current = true;
    setState({ isRunning: true, error: null });
    try {
      const value = await work();
      setState({ isRunning: false, error: null });
      onDone(value);
    } catch (error) {
      setState({ isRunning: false, error });
    } finally {
      running.current = false;
    }
  }

  return { ...state, run: () => void start() };
}
