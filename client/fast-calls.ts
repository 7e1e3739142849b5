/** The calls that have a faster way than tRPC: a path of their own, which the server answers before all else. */
import { errorInEnvelope, foreign, isRecord, jsonOf } from './answers.ts';
import { type Patience, persist } from './attempts.ts';
import type { VerifyInput, VerifyResult } from './countersign.ts';
import type { CallOptions } from './procedure-calls.ts';
import type { CallHeaders, Post } from './transport.ts';

export interface FastCall<T> {
  name: string;
  url: URL;
  body: unknown;
  repeatable: boolean;
  headers?: Partial<CallHeaders>;
  /** Answers null for what is not an answer of this path. */
  read: (json: unknown) => T | null;
}

export type CallFast = <T>(call: FastCall<T>, options: CallOptions | undefined) => Promise<T>;

export interface FastCallsOptions {
  send: Post;
  /** As it is by then: a machine may rotate its secret. */
  authorization: () => string;
  patience: Patience;
}

export const createCallFast =
  ({ send, authorization, patience }: FastCallsOptions): CallFast =>
  ({ name, url, body, repeatable, headers, read }, options) =>
    persist(name, repeatable, { ...patience, ...options }, async (signal) => {
      const reply = await send(
        url,
        { authorization: authorization(), ...headers },
        JSON.stringify(body),
        signal,
      );
      const json = jsonOf(reply);
      if (reply.status >= 300) throw errorInEnvelope(reply.status, json) ?? foreign(reply.status);
      const answer = read(json);
      if (answer === null) throw foreign(reply.status);
      return answer;
    });

export interface VerifyCalls {
  /** Judges one credential. */
  verify(input: VerifyInput, options?: CallOptions): Promise<VerifyResult>;
  /** Judges up to 100 credentials; answers in their order. */
  verifyBatch(items: VerifyInput[], options?: CallOptions): Promise<VerifyResult[]>;
}

export function createVerifyCalls(base: URL, callFast: CallFast): VerifyCalls {
  const one = new URL('v1/verify', base);
  const many = new URL('v1/verify/batch', base);
  return {
    verify: (input, options) =>
      callFast(
        {
          name: 'verify',
          url: one,
          body: input,
          repeatable: true,
          read: (json) => (isResult(json) ? json : null),
        },
        options,
      ),
    verifyBatch: (items, options) =>
      callFast(
        {
          name: 'verifyBatch',
          url: many,
          body: { items },
          repeatable: true,
          read: (json) =>
            Array.isArray(json) && json.length === items.length && json.every(isResult) ? json : null,
        },
        options,
      ),
  };
}

/** A stranger's answer must never pass for `valid`. */
const isResult = (json: unknown): json is VerifyResult =>
  isRecord(json) && typeof json['valid'] === 'boolean';
