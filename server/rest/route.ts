/** A row of the table of routes: what takes it, who may call it, what goes in and out, and what the domain does. */
import type { z } from 'zod';
import type { ACCESS } from '../access.ts';
import type { Caller, Deps } from '../deps.ts';
import type { Address } from '../domain/secrets.ts';
import { type Naming, type Wire, wireOf } from './wire.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** What lets somebody in: a procedure of the table of access. Null lets in everybody. */
export type RouteAccess = keyof typeof ACCESS | 'feed.follow' | null;

/** Clerk's code of a caller who is not known; a route with one is Clerk's, and has Clerk's codes. */
export type UnknownCallerCode = 'clerk_key_invalid' | 'machine_secret_key_invalid';

/** Who calls, from where, and what the domain may touch. */
export interface Call {
  deps: Deps;
  caller: Caller;
  address: Address;
}

export interface Route {
  method: Method;
  /** With `{names}` of the wire: `/v1/machines/{id}`. The form without `/v1` is served too. */
  path: string;
  access: RouteAccess;
  input: Wire;
  output: Wire;
  /** With 204 nothing is answered but that. */
  status: 200 | 201 | 204 | 410;
  /** The media type of the answer. */
  type: string;
  clerk: UnknownCallerCode | null;
  /** What it does; null where its procedure says it. */
  summary: string | null;
  bytesMax: number;
  /** What its body is, where its method has one. */
  body: 'application/json' | 'multipart/form-data';
  /** Parses an input in our names and answers in our names; null for what `server/hot` answers itself. */
  run: ((call: Call, input: unknown) => Promise<unknown>) | null;
}

interface Details<I extends z.ZodType, O extends z.ZodType> {
  input: I;
  output: O;
  status?: Route['status'];
  type?: string;
  clerk?: UnknownCallerCode;
  summary?: string;
  bytesMax?: number;
  body?: Route['body'];
  /** Wire names that are not ours in snake case. */
  naming?: Naming;
  /** What an input looks like, where its schema leaves that to the domain. */
  inputShape?: z.ZodType;
}

interface AnsweredDetails<I extends z.ZodType, O extends z.ZodType> extends Details<I, O> {
  run(call: Call, input: z.output<I>): Promise<z.input<O>>;
}

const BODY_BYTES_MAX = 64 * 1024;

/** A route that the domain answers. Its path's names must be fields of its input. */
export function route<I extends z.ZodType, O extends z.ZodType>(
  place: `${Method} /${string}`,
  access: RouteAccess,
  { run, ...details }: AnsweredDetails<I, O>,
): Route {
  return {
    ...describe(place, access, details),
    run: (call, input) => run(call, details.input.parse(input)),
  };
}

/** A route that `server/hot` answers: the table only says what it looks like. */
export const hotRoute = <I extends z.ZodType, O extends z.ZodType>(
  place: `${Method} /${string}`,
  access: RouteAccess,
  details: Details<I, O>,
): Route => ({ ...describe(place, access, details), run: null });

function describe<I extends z.ZodType, O extends z.ZodType>(
  place: string,
  access: RouteAccess,
  details: Details<I, O>,
): Omit<Route, 'run'> {
  const [method, path = ''] = place.split(' ');
  const { naming } = details;
  return {
    method: method as Method,
    path,
    access,
    input: wireOf(details.inputShape ?? details.input, 'input', naming),
    output: wireOf(details.output, 'output', naming),
    status: details.status ?? 200,
    type: details.type ?? 'application/json',
    clerk: details.clerk ?? null,
    summary: details.summary ?? null,
    bytesMax: details.bytesMax ?? BODY_BYTES_MAX,
    body: details.body ?? 'application/json',
  };
}
