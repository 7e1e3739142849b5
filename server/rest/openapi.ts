/** The OpenAPI document: the table of routes once more, for those who read it by machine. */
import { whoMayCall } from '../access.ts';
import type { Method, Route } from './route.ts';
import { ROUTES } from './routes.ts';
import { IDEMPOTENCY_HEADER, type JsonSchema } from './wire.ts';

export interface OpenApiOptions {
  publicUrl: string;
  /** What a procedure does, in a sentence. */
  descriptionOf: (procedure: string) => string;
}

export interface OpenApiDocument {
  openapi: '3.1.0';
  info: object;
  servers: { url: string }[];
  tags: { name: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, JsonSchema>; responses: object; securitySchemes: object };
}

export interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  description?: string;
  security: Record<string, never[]>[];
  parameters: Parameter[];
  requestBody?: { required: boolean; content: Content };
  responses: Record<string, { description: string; content?: Content } | { $ref: string }>;
}

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required: boolean;
  schema: JsonSchema;
}

type Content = Record<string, { schema: JsonSchema }>;

/** OpenAPI 3.1, whose schemas are JSON Schema 2020-12. */
export function openApiDocument({ publicUrl, descriptionOf }: OpenApiOptions): OpenApiDocument {
  const schemas: Record<string, JsonSchema> = { Errors: ERRORS_SCHEMA };
  const paths: OpenApiDocument['paths'] = {};
  for (const route of ROUTES) {
    const operations = paths[route.path] ?? {};
    operations[route.method.toLowerCase()] = operationOf(route, descriptionOf, schemas);
    paths[route.path] = operations;
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Countersign, machine authentication',
      version: 'v1',
      description: INTRODUCTION,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: publicUrl }],
    tags: [...new Set(ROUTES.map(tagOf))].map((name) => ({ name })),
    paths,
    components: {
      schemas,
      responses: {
        Errors: {
          description: 'A refusal: `docs/errors.md` lists the codes',
          content: { 'application/json': { schema: refTo('Errors') } },
        },
      },
      securitySchemes: {
        secretKey: { type: 'http', scheme: 'bearer', description: 'A secret key, `sk_…`' },
        machineSecretKey: { type: 'http', scheme: 'bearer', description: "A machine's own secret, `msk_…`" },
      },
    },
  };
}

const INTRODUCTION = `Machines, M2M tokens and API keys as Clerk's Backend API has them, with what goes beyond it in the same style. Every
path is served without \`/v1\` too, except those of verifying, status lists and the feed. Instants are milliseconds since
1970-01-01 UTC. An input may have no other fields than those listed. Who creates something may send an
\`${IDEMPOTENCY_HEADER}\`: the same again within 24 hours answers what was made, without its secret.`;

const ERRORS_SCHEMA: JsonSchema = {
  type: 'object',
  properties: {
    errors: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        properties: {
          code: { type: 'string' },
          message: { type: 'string' },
          long_message: { type: 'string' },
          meta: {
            type: 'object',
            properties: {
              param_name: { type: 'string' },
              retry_after_ms: { type: 'number' },
              countersign_code: { type: 'string' },
            },
            additionalProperties: false,
          },
        },
        required: ['code', 'message', 'long_message'],
        additionalProperties: false,
      },
    },
    clerk_trace_id: { type: 'string' },
  },
  required: ['errors', 'clerk_trace_id'],
  additionalProperties: false,
};

function operationOf(
  route: Route,
  descriptionOf: OpenApiOptions['descriptionOf'],
  schemas: Record<string, JsonSchema>,
): Operation {
  const input = hoist(route.input.schema(), schemas);
  const body = hasBody(route.method) ? bodyOf(route, input) : null;
  const who = route.access === null ? [] : whoMayCall(route.access);
  return {
    operationId: operationIdOf(route),
    tags: [tagOf(route)],
    summary: route.summary ?? descriptionOf(route.access ?? ''),
    ...(who.length > 0 && { description: `For ${who.map(called).join(', ')}.` }),
    security: [
      ...(who.some((each) => each !== 'machine') ? [{ secretKey: [] }] : []),
      ...(who.includes('machine') ? [{ machineSecretKey: [] }] : []),
    ],
    parameters: parametersOf(route, input),
    ...(body && { requestBody: body }),
    responses: responsesOf(route, schemas),
  };
}

/** Rows that say themselves what they do are a second way to what their procedure lets them do. */
const operationIdOf = ({ method, path, access, summary }: Route): string =>
  summary === null && access !== null
    ? access.replace('.', '_')
    : `${method.toLowerCase()}${path.replace(/^\/v1|[{}]/g, '').replace(/[^a-z0-9]+/gi, '_')}`;

const tagOf = ({ path }: Pick<Route, 'path'>): string => path.split('/')[2] ?? '';

const called = (who: string) => (who === 'machine' ? 'machines' : `\`${who}\` keys`);

const hasBody = (method: Method) => method !== 'GET' && method !== 'DELETE';

const isInPath = ({ path }: Route, name: string) => path.includes(`{${name}}`);

function parametersOf(route: Route, { properties = {}, required = [] }: JsonSchema): Parameter[] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const place = placeOf(route, name);
    return place === null ? [] : [{ name, in: place, required: required.includes(name), schema }];
  });
}

function placeOf(route: Route, name: string): Parameter['in'] | null {
  if (isInPath(route, name)) return 'path';
  if (name === IDEMPOTENCY_HEADER) return 'header';
  return hasBody(route.method) ? null : 'query';
}

function bodyOf(route: Route, input: JsonSchema): Operation['requestBody'] | null {
  const isOfBody = (name: string) => placeOf(route, name) === null;
  const fields = Object.entries(input.properties ?? {}).filter(([name]) => isOfBody(name));
  if (fields.length === 0) return null;
  const required = (input.required ?? []).filter(isOfBody);
  const schema = { ...input, properties: Object.fromEntries(fields), required };
  return { required: required.length > 0, content: { [route.body]: { schema } } };
}

function responsesOf(route: Route, schemas: Record<string, JsonSchema>): Operation['responses'] {
  const refused = Object.fromEntries(
    refusalsOf(route).map((status) => [status, { $ref: '#/components/responses/Errors' }]),
  );
  if (route.status === 410) return refused;
  if (route.status === 204) return { 204: { description: 'Done' }, ...refused };
  const schema = hoist(route.output.schema(), schemas);
  const content = { [route.type]: { schema } };
  return { [route.status]: { description: 'Done', content }, ...refused };
}

const refusalsOf = ({ method, access, status }: Route): number[] => [
  400,
  ...(access === null ? [] : [401, 403]),
  404,
  ...(access === null ? [] : [409]),
  ...(status === 410 ? [410] : []),
  ...(hasBody(method) ? [413, 415] : []),
  429,
  503,
];

const refTo = (name: string) => ({ $ref: `#/components/schemas/${name}` });

/** Puts every schema with a name of its own among the document's, and refers to it. */
function hoist(schema: JsonSchema, schemas: Record<string, JsonSchema>): JsonSchema {
  const { properties, items, anyOf } = schema;
  const { title, ...rest } = schema;
  const inner: JsonSchema = {
    ...rest,
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, each]) => [name, hoist(each, schemas)]),
      ),
    }),
    ...(items && { items: hoist(items, schemas) }),
    ...(anyOf && { anyOf: anyOf.map((each) => hoist(each, schemas)) }),
  };
  if (title === undefined) return inner;
  schemas[title] = inner;
  return refTo(title);
}
