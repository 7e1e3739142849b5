/** What the doctor found, and the manner of looking: one table of checks for each thing that is looked at. */
export interface Finding {
  check: string;
  /** `skipped` where something else has to be mended first, or was not given. */
  state: 'ok' | 'warning' | 'problem' | 'skipped';
  found: string;
  /** What to do about it; null where nothing is to be done. */
  mend: string | null;
}

export type Seen = Omit<Finding, 'check'>;

export interface Check<About> {
  name: string;
  look(about: About): Seen | Promise<Seen>;
}

export const ok = (found: string): Seen => ({ state: 'ok', found, mend: null });
export const warning = (found: string, mend: string): Seen => ({ state: 'warning', found, mend });
export const problem = (found: string, mend: string): Seen => ({ state: 'problem', found, mend });
export const skipped = (found: string): Seen => ({ state: 'skipped', found, mend: null });

const LOOK_MS_MAX = 10_000;

/** One check after another. One that fails is a problem of its own, and keeps none of the others from looking. */
export async function lookAt<About>(checks: readonly Check<About>[], about: About): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { name, look } of checks)
    findings.push({ check: name, ...(await within(LOOK_MS_MAX, look, about)) });
  return findings;
}

/** What cannot be looked at. */
export const skipAll = (checks: readonly { name: string }[], why: string): Finding[] =>
  checks.map(({ name }) => ({ check: name, ...skipped(why) }));

async function within<About>(timeoutMs: number, look: Check<About>['look'], about: About): Promise<Seen> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Seen>((resolve) => {
    timer = setTimeout(
      () => resolve(problem(`No answer within ${timeoutMs / 1000} s`, 'See whether it is overloaded')),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([look(about), late]);
  } catch (error) {
    return problem(messageOf(error), 'Mend what the other checks found first, and look again');
  } finally {
    clearTimeout(timer);
  }
}

/** What went wrong at the bottom of it; a connection refused at each of several addresses has only a code. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return 'Something that is no error was thrown';
  if (error.cause instanceof Error) return messageOf(error.cause);
  return error.message || String((error as NodeJS.ErrnoException).code);
}
