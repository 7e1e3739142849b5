/** Inputs made from the document, and hostile ones, to every route: no failure of ours, and no answer outside the document. */
import fc from 'fast-check';
import { expect, it, onTestFinished } from 'vitest';
import { ensureJobs } from '../../../server/domain/jobs.ts';
import { createOutbound } from '../../../server/outbound.ts';
import type { Operation, Parameter } from '../../../server/rest/openapi.ts';
import type { JsonSchema } from '../../../server/rest/wire.ts';
import { openTestDeps } from '../../support/deps.ts';
import { DOCUMENT, serveRest } from '../../support/rest.ts';

/** Bounds all of it to about half a minute: an answer takes a few milliseconds, and a furnished server a tenth of a second. */
const RUNS = 30;

/** All but the feed, which goes on. */
const OPERATIONS = Object.entries(DOCUMENT.paths)
  .filter(([path]) => path !== '/v1/feed')
  .flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ method, path, operation })),
  );

/** What other programs send by mistake, and what attackers send. */
const hostile: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    '',
    ' ',
    '\0',
    '\ud800',
    "'; drop table machines; --",
    '../../etc/passwd',
    '%00',
    '{id}',
    'x'.repeat(5000),
    -1,
    0,
    1.5,
    1e308,
    Number.MAX_SAFE_INTEGER,
    true,
    [],
    {},
    [[[[[[]]]]]],
    { __proto__: null, constructor: { prototype: {} } },
  ),
  fc.string({ unit: 'binary' }),
  fc.jsonValue(),
);

function anyValueOf(schema: JsonSchema, known: readonly string[]): fc.Arbitrary<unknown> {
  const sound = fittingValueOf(schema, known);
  return fc.oneof({ weight: 30, arbitrary: sound }, { weight: 1, arbitrary: hostile });
}

function fittingValueOf(schema: JsonSchema, known: readonly string[]): fc.Arbitrary<unknown> {
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (schema['const'] !== undefined) return fc.constant(schema['const']);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map((each) => fittingValueOf(each, known)));
  switch (schema.type) {
    case 'string':
      return textOf(schema, known);
    case 'integer':
    case 'number':
      return fc.integer({
        min: Math.max(Number(schema['minimum'] ?? 0), -1e9),
        max: Math.min(Number(schema['maximum'] ?? 1000), 1e9),
      });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(anyValueOf(schema.items ?? {}, known), { maxLength: 3 });
    case 'object':
      return schema.properties
        ? objectOf(schema, known)
        : fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 });
    default:
      return hostile;
  }
}

/** Of texts that are there, those that fit; else made up. */
function textOf(schema: JsonSchema, known: readonly string[]): fc.Arbitrary<string> {
  const pattern = typeof schema['pattern'] === 'string' ? new RegExp(schema['pattern']) : null;
  const maxLength = Number(schema['maxLength'] ?? 40);
  const madeUp = pattern
    ? fc.stringMatching(pattern)
    : fc.string({ minLength: Number(schema['minLength'] ?? 0), maxLength: Math.min(maxLength, 40) });
  const fitting = known.filter((text) => (pattern?.test(text) ?? true) && text.length <= maxLength);
  return fitting.length === 0
    ? madeUp
    : fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...fitting) }, madeUp);
}

function objectOf(
  { properties = {}, required = [] }: JsonSchema,
  known: readonly string[],
): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, anyValueOf(inner, known)])),
    { requiredKeys: required },
  );
}

interface Asked {
  path: string;
  query: string;
  body: string | undefined;
  headers: Record<string, string>;
}

/** As a URL can carry it: halves of surrogate pairs it cannot. */
const asText = (value: unknown) =>
  (typeof value === 'string' ? value : JSON.stringify(value)).replace(/\p{Cs}/gu, '');

function askOf(path: string, operation: Operation, known: readonly string[]): fc.Arbitrary<Asked> {
  const valueIn = ({ schema }: Parameter) => anyValueOf(schema, known).map(asText);
  const parameters = fc.record(
    Object.fromEntries(operation.parameters.map((each) => [each.name, valueIn(each)])),
    { requiredKeys: operation.parameters.filter(({ required }) => required).map(({ name }) => name) },
  );
  const schema = operation.requestBody?.content['application/json']?.schema;
  const body = schema
    ? fc.oneof(
        { weight: 9, arbitrary: anyValueOf(schema, known).map((value) => JSON.stringify(value)) },
        { weight: 1, arbitrary: fc.constantFrom('', '{', 'null', '[]', '"x"', '{"__proto__":{}}') },
      )
    : fc.constant(undefined);
  return fc.tuple(parameters, body).map(([given, text]) => {
    const named = (place: Parameter['in']) =>
      operation.parameters.flatMap(({ name, in: where }): [string, string][] =>
        where === place && given[name] !== undefined ? [[name, String(given[name])]] : [],
      );
    const filled = named('path').reduce(
      (filling, [name, value]) => filling.replace(`{${name}}`, () => encodeURIComponent(value) || '-'),
      path,
    );
    return {
      path: filled,
      query: new URLSearchParams(named('query')).toString(),
      body: text,
      headers: Object.fromEntries(named('header').filter(([, value]) => /^[\x21-\x7e]+$/.test(value))),
    };
  });
}

/** One of everything, so that more than refusals is reached. */
async function furnish() {
  const outbound = createOutbound({ allowLoopbackHttp: false });
  onTestFinished(() => outbound.close());
  // The server's own, because it is what refuses URLs.
  const deps = { ...(await openTestDeps('sqlite')), outbound };
  await ensureJobs(deps);
  const { ask } = await serveRest(deps);
  const post = async (path: string, body: unknown, credential = deps.adminKey) =>
    (await ask('POST', path, { credential, body })).body;
  const ledger = await post('/v1/machines', { name: 'ledger' });
  const billing = await post('/v1/machines', { name: 'billing', scoped_machines: [ledger.id] });
  const token = await post('/v1/m2m_tokens', {}, billing.secret_key);
  const key = await post('/v1/api_keys', { name: 'export', subject: 'user_1' });
  const prefix = await post('/v1/key_prefixes', { prefix: 'acme_' });
  const policy = await post('/v1/key_policies', { name: 'trial' });
  const reader = await post('/v1/secret_keys', { name: 'reader', role: 'read' });
  const signingKey = await post('/v1/signing_keys', {});
  const endpoint = await post('/v1/webhook_endpoints', { url: 'https://hooks.example.com/in' });
  await post(`/v1/webhook_endpoints/${endpoint.id}/test`, {});
  const deliveries = await ask('GET', '/v1/deliveries', { credential: deps.adminKey });
  const known: string[] = [
    ...[ledger, billing, token, key, policy, reader, endpoint, ...deliveries.body.data].map(({ id }) => id),
    ...[prefix.prefix, signingKey.kid, 'user_1', token.token, key.secret],
  ];
  return { ask, known, adminKey: deps.adminKey, machineKey: String(billing.secret_key) };
}

it.each(OPERATIONS)('$method $path answers within the document to whatever is sent', async (asked) => {
  const { ask, known, adminKey, machineKey } = await furnish();
  const callers = fc.constantFrom(
    adminKey,
    adminKey,
    adminKey,
    machineKey,
    machineKey,
    'sk_nobody',
    undefined,
  );
  const isAnswered = fc.asyncProperty(
    askOf(asked.path, asked.operation, known),
    callers,
    async ({ path, query, headers, body }, credential) => {
      const answer = await ask(asked.method.toUpperCase(), `${path}?${query}`, { credential, headers, body });
      expect(answer.status).toBeLessThan(500);
    },
  );
  await fc.assert(isAnswered, { numRuns: RUNS, interruptAfterTimeLimit: 5_000, endOnFailure: true });
});
