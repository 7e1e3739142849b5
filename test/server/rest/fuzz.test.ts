/** Inputs made from the document, and hostile ones, to every route: no failure of ours, and no answer outside the document. */
import fc from 'fast-check';
import { expect, it, onTestFinished } from 'vitest';
import { createOutbound } from '../../../server/outbound.ts';
import type { Operation, Parameter } from '../../../server/rest/openapi.ts';
import type { JsonSchema } from '../../../server/rest/wire.ts';
import { openTestDeps } from '../../support/deps.ts';
import { DOCUMENT, serveRest } from '../../support/rest.ts';

/** Bounds all of it to about half a minute: an answer takes a few milliseconds. */
const RUNS = 40;

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

function anyValueOf(schema: JsonSchema): fc.Arbitrary<unknown> {
  const sound = fittingValueOf(schema);
  return fc.oneof({ weight: 8, arbitrary: sound }, { weight: 1, arbitrary: hostile });
}

function fittingValueOf(schema: JsonSchema): fc.Arbitrary<unknown> {
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (schema['const'] !== undefined) return fc.constant(schema['const']);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map(fittingValueOf));
  switch (schema.type) {
    case 'string':
      return textOf(schema);
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
      return fc.array(anyValueOf(schema.items ?? {}), { maxLength: 3 });
    case 'object':
      return schema.properties
        ? objectOf(schema)
        : fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 });
    default:
      return hostile;
  }
}

function textOf(schema: JsonSchema): fc.Arbitrary<string> {
  const pattern = schema['pattern'];
  if (typeof pattern === 'string') return fc.stringMatching(new RegExp(pattern));
  const maxLength = Math.min(Number(schema['maxLength'] ?? 20), 40);
  return fc.string({ minLength: Number(schema['minLength'] ?? 0), maxLength });
}

function objectOf({ properties = {}, required = [] }: JsonSchema): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, anyValueOf(inner)])),
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

/** Ids of things that are there, so that more than refusals is reached. */
function askOf(path: string, operation: Operation, known: readonly string[]): fc.Arbitrary<Asked> {
  const valueIn = ({ schema, in: place }: Parameter) =>
    place === 'path'
      ? fc.oneof(fc.constantFrom(...known), anyValueOf(schema)).map(asText)
      : anyValueOf(schema).map(asText);
  const parameters = fc.record(
    Object.fromEntries(operation.parameters.map((each) => [each.name, valueIn(each)])),
    { requiredKeys: operation.parameters.filter(({ required }) => required).map(({ name }) => name) },
  );
  const schema = operation.requestBody?.content['application/json']?.schema;
  const body = schema
    ? fc.oneof(
        { weight: 9, arbitrary: anyValueOf(schema).map((value) => JSON.stringify(value)) },
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

it('every route answers within the document to whatever is sent', { timeout: 90_000 }, async () => {
  const outbound = createOutbound({ allowLoopbackHttp: false });
  onTestFinished(() => outbound.close());
  // The server's own, because it is what refuses URLs.
  const deps = { ...(await openTestDeps('sqlite')), outbound };
  const { ask } = await serveRest(deps);
  const admin = { credential: deps.adminKey };
  const machine = await ask('POST', '/v1/machines', { ...admin, body: { name: 'billing' } });
  const credential: string = machine.body.secret_key;
  const key = await ask('POST', '/v1/api_keys', { ...admin, body: { name: 'export', subject: 'user_1' } });
  const token = await ask('POST', '/v1/m2m_tokens', { credential, body: {} });
  const known: string[] = [machine.body.id, key.body.id, token.body.id, 'user_1'];
  const callers = fc.constantFrom(deps.adminKey, deps.adminKey, credential, 'sk_nobody', undefined);
  for (const { method, path, operation } of OPERATIONS) {
    await fc.assert(
      fc.asyncProperty(askOf(path, operation, known), callers, async (asked, caller) => {
        const { status } = await ask(method.toUpperCase(), `${asked.path}?${asked.query}`, {
          credential: caller,
          headers: asked.headers,
          body: asked.body,
        });
        expect(status).toBeLessThan(500);
      }),
      { numRuns: RUNS, interruptAfterTimeLimit: 5_000, endOnFailure: true },
    );
  }
});
