/** Calls of procedures by their path, as a transport makes them: with an `Authorization` header and an unparsed input. */
import { TRPCError } from '@trpc/server';
import type { Deps } from '../../server/deps.ts';
import { translate } from '../../server/translate.ts';
import { createCallerFactory } from '../../server/trpc/base.ts';
import { appRouter } from '../../server/trpc/router.ts';

const createCaller = createCallerFactory(appRouter);

/** At run time a flat record by path, whatever its type says. */
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: 'query' | 'mutation' } }>
>;

/** Every path of the router. */
export const PATHS = Object.keys(procedures).sort();

export const MUTATIONS = PATHS.filter((path) => procedures[path]?._def.type === 'mutation');

/** Calls a procedure; throws whatever the transport would translate. */
export async function call(
  deps: Deps,
  secret: string | undefined,
  path: string,
  input: unknown,
): Promise<unknown> {
  const context = {
    deps,
    authorization: secret === undefined ? undefined : `Bearer ${secret}`,
    address: () => '127.0.0.1',
    requestId: 'req_test',
  };
  let procedure: unknown = createCaller(context);
  for (const name of path.split('.')) procedure = (procedure as Record<string, unknown>)[name];
  return (procedure as (input: unknown) => Promise<unknown>)(input);
}

/** The code with which a call is refused, or `ok`. */
export async function outcomeOf(calling: Promise<unknown>): Promise<string> {
  try {
    await calling;
    return 'ok';
  } catch (error) {
    if (!(error instanceof TRPCError)) throw error;
    return translate(error, 'req_test').code;
  }
}
