/** Rotates a machine's own secret once it is due, on the occasion of its use: nothing runs by itself. */
import { CountersignError } from '../server/errors.ts';
import type { Countersign } from './countersign.ts';
import type { RotateOwnSecretInput } from './machine-secrets.ts';

export interface OwnSecretCareOptions extends RotateOwnSecretInput {
  /** How long before its deadline a secret is rotated. Without it, a quarter of the period, at most 7 days. */
  leadSeconds?: number | undefined;
}

type OwnMachine = Awaited<ReturnType<Countersign['machines']['getOwn']>>;

const LOOK_MS = 15 * 60_000;
/** After one that failed. */
const LOOK_AGAIN_MS = 60_000;
const LEAD_MS_MAX = 7 * 86_400_000;

export function createOwnSecretCare(
  machines: Pick<Countersign['machines'], 'getOwn' | 'rotateOwnSecret'>,
  { leadSeconds, ...input }: OwnSecretCareOptions,
  tell: (error: unknown) => void,
): { look(): Promise<void> } {
  let lookAt = 0;
  let unstored = false;

  async function rotateIfDue() {
    if (!unstored && !isDue(await machines.getOwn(), leadSeconds)) return;
    unstored = false;
    await machines.rotateOwnSecret(input);
  }

  return {
    /** Asks at most every quarter of an hour whether the secret is due; never rejects. */
    async look() {
      if (performance.now() < lookAt) return;
      lookAt = performance.now() + LOOK_MS;
      try {
        await rotateIfDue();
      } catch (error) {
        // The client still has the secret that could not be stored, and offers it again.
        unstored = error instanceof CountersignError && error.code === 'not_stored';
        lookAt = performance.now() + LOOK_AGAIN_MS;
        tell(error);
      }
    },
  };
}

function isDue({ rotation, rotateBy }: OwnMachine, leadSeconds: number | undefined): boolean {
  if (rotateBy === null || rotation === null) return false;
  const leadMs =
    leadSeconds === undefined
      ? Math.min(LEAD_MS_MAX, (rotation.periodSeconds * 1000) / 4)
      : leadSeconds * 1000;
  return Date.now() >= rotateBy - leadMs;
}
