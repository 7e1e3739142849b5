/** A machine's own secret, replaced by itself: the new one is stored before the one before is needed no more. */
import { inspect } from 'node:util';
import { CountersignError } from '../server/errors.ts';
import type { Outputs } from './countersign.ts';
import type { CallOptions } from './procedure-calls.ts';

type Rotated = Outputs['machines']['rotateOwnSecret'];

export interface RotateOwnSecretInput {
  /**
   * Keeps the new secret where this machine finds it when it starts next, and is awaited; throws where that failed.
   */
  store: (secret: string) => unknown;
  /** How long the secret of before is accepted too: 1 to 2,592,000. Without it, an hour. */
  overlapSeconds?: number | undefined;
}

/** Shows no secret: that is where `store` put it. */
export type OwnSecretRotation = Omit<Rotated, 'secret'>;

/** What a client lets this do. */
interface OwnClient {
  rotate(input: { overlapSeconds?: number }, options?: CallOptions): Promise<Rotated>;
  /** Calls with this secret from now on; answers what takes that back. */
  use(secret: string): () => void;
  /** Any call that only a secret which is accepted may make. */
  tryOut(options?: CallOptions): Promise<unknown>;
}

/**
 * Rotates with an overlap, stores the new secret, has the client call with it and tries it out, in that order: whatever
 * fails, a secret that is accepted is stored. A secret that could not be stored is offered to the next call's `store`.
 */
export function createOwnSecretRotation({ rotate, use, tryOut }: OwnClient) {
  let unstored: Rotated | undefined;

  return async (input: RotateOwnSecretInput, options?: CallOptions): Promise<OwnSecretRotation> => {
    const { store, overlapSeconds } = checked(input);
    const rotated = unstored ?? (await rotate({ ...(overlapSeconds && { overlapSeconds }) }, options));
    const { secret = '', ...rotation } = rotated;
    try {
      await store(secret);
    } catch (error) {
      unstored = rotated;
      throw notStored(error, secret, rotation);
    }
    unstored = undefined;
    const goBack = use(secret);
    try {
      await tryOut(options);
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      const isRefused = error.code === 'unauthenticated';
      if (isRefused) goBack();
      throw notTried(error, isRefused, rotation);
    }
    return rotation;
  };
}

function checked(input: RotateOwnSecretInput): RotateOwnSecretInput {
  const { store, overlapSeconds } = input;
  if (typeof store !== 'function') throw refusal('store', 'be a function', typeof store);
  if (overlapSeconds === 0) throw refusal('overlapSeconds', 'be at least 1', '0');
  return input;
}

const refusal = (field: string, wanted: string, found: string) =>
  new CountersignError('invalid_input', `Cannot rotate: '${field}' must ${wanted}, got ${found}`, { field });

const untilOf = ({ previousExpiresAt }: OwnSecretRotation) =>
  previousExpiresAt === null ? 'no longer' : `until ${new Date(previousExpiresAt).toISOString()}`;

function notStored(cause: unknown, secret: string, rotation: OwnSecretRotation): CountersignError {
  return new CountersignError(
    'not_stored',
    `Cannot store the new secret of machine '${rotation.id}': this client goes on with the one before, accepted ${untilOf(rotation)}; the next call offers the new one to 'store' again`,
    holds(cause, secret) ? {} : { cause },
  );
}

function notTried(cause: CountersignError, isRefused: boolean, rotation: OwnSecretRotation) {
  const { code, requestId, retryAfterMs } = cause;
  const after = isRefused
    ? `was refused: this client goes on with the one before, accepted ${untilOf(rotation)}`
    : 'is in use, but could not be tried out';
  const message = `The new secret of machine '${rotation.id}' is stored and ${after}: ${cause.message}`;
  return new CountersignError(code, message, { requestId, retryAfterMs, cause });
}

/** As deep as anybody prints an error: who writes a file may say what could not be written. */
const holds = (error: unknown, secret: string) =>
  inspect(error, { depth: 8, showHidden: true, maxArrayLength: null, maxStringLength: null }).includes(
    secret,
  );
