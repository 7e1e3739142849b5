/** How a row of the table is answered: its input put together from path, query, header and body, and given our names. */
import { z } from 'zod';
import { authenticate, type RequestContext } from '../authenticate.ts';
import { CountersignError } from '../errors.ts';
import { translate } from '../translate.ts';
import { inWireNames } from './errors.ts';
import type { Route } from './route.ts';
import { IDEMPOTENCY_HEADER, isRecord, type JsonSchema } from './wire.ts';

interface RouteRequest {
  /** What stands where the path has names, still encoded. */
  params: Readonly<Record<string, string>>;
  /** From the question mark on, or empty. */
  query: string;
  idempotencyKey: string | undefined;
  /** Parses the body, perhaps in a while; null where the method has none. */
  readBody: (() => unknown) | null;
}

/** The body of the answer. Nobody learns what is wrong with an input who may not call the route. */
export async function answerRoute(
  route: Route,
  context: RequestContext,
  request: RouteRequest,
): Promise<unknown> {
  const { run, access } = route;
  if (!run || access === null) throw new TypeError(`Not answered here: ${route.method} ${route.path}`);
  const caller = await authenticate(context, access);
  const body = request.readBody ? bodyOf(await request.readBody()) : null;
  const input = route.input.toOwn(inputOf(route, request, body));
  try {
    const answer = await run({ deps: context.deps, caller, address: context.address }, input);
    return route.output.toWire(answer);
  } catch (error) {
    const told = error instanceof z.ZodError ? translate(error, '', input) : error;
    throw told instanceof CountersignError ? inWireNames(told, route.input.nameOf) : told;
  }
}

function inputOf(
  route: Route,
  { params, query, idempotencyKey }: RouteRequest,
  body: Record<string, unknown> | null,
): unknown {
  const { properties = {} } = route.input.schema();
  const given = body ?? queryOf(query, properties);
  const misplaced = [...Object.keys(params), IDEMPOTENCY_HEADER].find((name) => Object.hasOwn(given, name));
  if (misplaced !== undefined) {
    throw new CountersignError(
      'invalid_input',
      `Cannot accept the input: wanted no other fields, found '${misplaced}'`,
      { field: misplaced },
    );
  }
  return {
    ...given,
    ...Object.fromEntries(Object.entries(params).map(([name, text]) => [name, decoded(text)])),
    ...(idempotencyKey !== undefined &&
      IDEMPOTENCY_HEADER in properties && { [IDEMPOTENCY_HEADER]: idempotencyKey }),
  };
}

function bodyOf(json: unknown): Record<string, unknown> {
  if (isRecord(json)) return json;
  throw new CountersignError('invalid_input', 'Cannot accept the body: wanted an object');
}

/** Each parameter as its schema has it: what is no number stays a text, and is refused as one. */
function queryOf(query: string, properties: Record<string, JsonSchema>): Record<string, unknown> {
  const search = new URLSearchParams(query);
  const names = new Set(search.keys());
  return Object.fromEntries(
    [...names].map((name) => [name, parameterOf(search.getAll(name), properties[name] ?? {})]),
  );
}

function parameterOf(texts: string[], schema: JsonSchema): unknown {
  if (typesOf(schema).includes('array')) return texts;
  const [text = ''] = texts;
  // Given twice, it is not one: a list is refused where one is wanted.
  return texts.length > 1 ? texts : scalarOf(text, schema);
}

function scalarOf(text: string, schema: JsonSchema): unknown {
  const types = typesOf(schema);
  if (types.includes('boolean') && /^(true|false)$/.test(text)) return text === 'true';
  const isNumeric = types.includes('integer') || types.includes('number');
  if (isNumeric && /^-?\d{1,16}$/.test(text)) return Number(text);
  // A plus in a query is a space, unless it was encoded.
  return schema.enum?.includes(`+${text.trimStart()}`) && text.startsWith(' ')
    ? `+${text.trimStart()}`
    : text;
}

const typesOf = ({ type, anyOf = [] }: JsonSchema): string[] => [
  ...(type === undefined ? [] : [type]),
  ...anyOf.flatMap(typesOf),
];

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new CountersignError('invalid_input', 'Cannot read the path: wanted percent-encoded UTF-8');
  }
}
