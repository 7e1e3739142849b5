import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import { PREFIXES } from '../server/crypto/format.ts';
import { CountersignError } from '../server/errors.ts';
import type { AppRouter } from '../server/trpc/router.ts';
import type { Patience } from './attempts.ts';
import { createCallFast, createVerifyCalls, type VerifyCalls } from './fast-calls.ts';
import { fromWire, idempotencyHeader, inOwnNames, isMintedToken, toWire } from './m2m-tokens.ts';
import {
  createOwnSecretRotation,
  type OwnSecretRotation,
  type RotateOwnSecretInput,
} from './machine-secrets.ts';
import { authorizationOf, bearer, type CountersignOptions, serverUrl, wholeNumber } from './options.ts';
import { type CallOptions, createNouns } from './procedure-calls.ts';
import { createPost, postBy } from './transport.ts';

/** What each procedure takes, as `Inputs['machines']['create']`. */
export type Inputs = inferRouterInputs<AppRouter>;
/** What each procedure answers, as `Outputs['machines']['create']`. */
export type Outputs = inferRouterOutputs<AppRouter>;

export type VerifyInput = Inputs['credentials']['verify'];
/** `{ valid: true, … }`, or `{ valid: false, reason }`: an invalid credential is an answer, not an error. */
export type VerifyResult = Outputs['credentials']['verify'];

type Call<I, O> = undefined extends I
  ? (input?: I, options?: CallOptions) => Promise<O>
  : Record<never, never> extends I
    ? (input?: I, options?: CallOptions) => Promise<O>
    : (input: I, options?: CallOptions) => Promise<O>;

type Noun = Exclude<keyof Inputs & keyof Outputs, 'credentials'>;

type Nouns = {
  [N in Noun]: { [V in keyof Inputs[N] & keyof Outputs[N]]: Call<Inputs[N][V], Outputs[N][V]> };
};

type OwnSecret = {
  /**
   * Gives the calling machine a new secret, has `store` keep it, calls with it from then on and tries it out. Where `store`
   * throws, the client keeps the secret it has, which is accepted for the overlap, and throws `not_stored`: call again.
   * Answers what the procedure does, without the secret. Without `store`, the bare procedure.
   */
  rotateOwnSecret: ((input: RotateOwnSecretInput, options?: CallOptions) => Promise<OwnSecretRotation>) &
    Nouns['machines']['rotateOwnSecret'];
};

/**
 * A server's procedures by noun, and verification. Calls made at the same time travel in one request, but for `verify`,
 * `verifyBatch` and `m2mTokens.create`, which have a faster way of their own.
 *
 * Every failure is a `CountersignError` with a code of the closed table `ERRORS`; a call that is ended by its own `signal` throws the
 * signal's reason.
 */
export interface Countersign extends Omit<Nouns, 'machines'>, VerifyCalls {
  machines: Omit<Nouns['machines'], 'rotateOwnSecret'> & OwnSecret;
}

const TIMEOUT_MS = 5000;
const TIMEOUT_MS_MAX = 600_000;
const RETRIES = 2;
const RETRIES_MAX = 10;

/**
 * A client of a Countersign server, for one secret key or machine secret key.
 *
 * `timeoutMs` bounds a whole call. Within it, calls that may be repeated, among them creations with an `idempotencyKey`,
 * are sent again up to `retries` times after `timeout`, `network`, `unavailable` and `outcome_unknown`; an attempt that may
 * be followed by another takes at most half of the time that is left. Throws `invalid_input` for http off loopback, and
 * unless exactly one key is given.
 */
export function createCountersign(options: CountersignOptions = {}): Countersign {
  const base = serverUrl(options.url);
  let authorization = authorizationOf(options);
  const patience: Patience = {
    timeoutMs: wholeNumber('timeoutMs', options.timeoutMs ?? TIMEOUT_MS, 1, TIMEOUT_MS_MAX),
    retries: wholeNumber('retries', options.retries ?? RETRIES, 0, RETRIES_MAX),
  };
  const send = options.fetch ? postBy(options.fetch) : createPost();
  const post = (url: URL, body: string, signal: AbortSignal) => send(url, { authorization }, body, signal);

  const callFast = createCallFast({ send, authorization: () => authorization, patience });
  const m2mTokensUrl = new URL('v1/m2m_tokens', base);

  const nouns = createNouns(new URL('trpc', base), post, patience) as unknown as Nouns;
  const rotateAndStore = createOwnSecretRotation({
    rotate: nouns.machines.rotateOwnSecret,
    use(secret) {
      const before = authorization;
      authorization = bearer('machineSecretKey', secret, PREFIXES.machineSecretKey);
      return () => {
        authorization = before;
      };
    },
    tryOut: (callOptions) => nouns.m2mTokens.list({ limit: 1 }, callOptions),
  });
  return {
    ...nouns,
    machines: {
      ...nouns.machines,
      rotateOwnSecret: ((
        input: RotateOwnSecretInput | Inputs['machines']['rotateOwnSecret'] = {},
        callOptions,
      ) =>
        'store' in input
          ? rotateAndStore(input, callOptions)
          : nouns.machines.rotateOwnSecret(input, callOptions)) as OwnSecret['rotateOwnSecret'],
    },
    m2mTokens: {
      ...nouns.m2mTokens,
      create: async (input = {}, callOptions) => {
        const headers = idempotencyHeader(input);
        const minting = callFast(
          {
            name: 'm2mTokens.create',
            url: m2mTokensUrl,
            body: toWire(input),
            repeatable: input.idempotencyKey !== undefined,
            headers,
            read: (json) => (isMintedToken(json) ? fromWire(json, input) : null),
          },
          callOptions,
        );
        return minting.catch((error: unknown) => {
          throw error instanceof CountersignError && error.status > 0 ? inOwnNames(error) : error;
        });
      },
    },
    ...createVerifyCalls(base, callFast),
  };
}
