import { TRPCError } from '@trpc/server';
import { fetchRequestHandler } from '@trpc/server/adapters/fetch';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { StoreError } from '../../db/store.ts';
import { createApiKeyInput } from '../../server/domain/api-keys.ts';
import { credential } from '../../server/domain/fields.ts';
import { updateMachine } from '../../server/domain/machines.ts';
import { CountersignError } from '../../server/errors.ts';
import { translate } from '../../server/translate.ts';
import type { ErrorData } from '../../server/trpc/base.ts';
import { appRouter } from '../../server/trpc/router.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { newMachine } from '../support/machines.ts';

/** What is told of an input that a schema refuses. */
function told(schema: z.ZodType, input: unknown) {
  const parsed = schema.safeParse(input);
  if (parsed.success) throw new Error(`Accepted: ${JSON.stringify(input)}`);
  const { code, message, field } = translate(parsed.error, 'req_1', input);
  expect(code).toBe('invalid_input');
  return [message, field];
}

const schema = z.strictObject({
  name: z.string().min(3).max(255).optional(),
  count: z.number().int().min(1).max(500).optional(),
  ratio: z.number().gt(0).lt(1).multipleOf(0.25).optional(),
  enabled: z.boolean().optional(),
  kind: z.enum(['opaque', 'jwt']).optional(),
  only: z.literal(1).optional(),
  code: z.string().length(6).optional(),
  id: z.string().regex(/^mch_/, 'wanted an id: mch_ and 27 letters or digits').optional(),
  url: z.url().optional(),
  items: z.array(z.string().max(3)).min(1).max(2).optional(),
  claims: z.record(z.string().max(5), z.number()).optional(),
  either: z.union([z.string(), z.number()]).optional(),
  nested: z.union([z.object({ a: z.object({ b: z.number() }) }), z.string()]).optional(),
});

describe('translate() of an input', () => {
  it.each([
    [
      { name: 'x'.repeat(300) },
      "'name': wanted at most 255 characters, found text of 300 characters",
      'name',
    ],
    [{ name: 'x' }, "'name': wanted at least 3 characters, found text of 1 character", 'name'],
    [{ name: 7 }, "'name': wanted text, found 7", 'name'],
    [{ name: null }, "'name': wanted text, found null", 'name'],
    [{ count: 501 }, "'count': wanted at most 500, found 501", 'count'],
    [{ count: 0 }, "'count': wanted at least 1, found 0", 'count'],
    [{ count: 1.5 }, "'count': wanted a whole number, found 1.5", 'count'],
    [{ count: '5' }, "'count': wanted a number, found text of 1 character", 'count'],
    [{ count: true }, "'count': wanted a number, found true", 'count'],
    [{ ratio: 1 }, "'ratio': wanted less than 1, found 1", 'ratio'],
    [{ ratio: 0 }, "'ratio': wanted more than 0, found 0", 'ratio'],
    [{ ratio: 0.3 }, "'ratio': wanted a multiple of 0.25, found 0.3", 'ratio'],
    [{ enabled: 'yes' }, "'enabled': wanted true or false, found text of 3 characters", 'enabled'],
    [{ kind: 'saml' }, "'kind': wanted one of 'opaque', 'jwt', found text of 4 characters", 'kind'],
    [{ only: 2 }, "'only': wanted 1, found 2", 'only'],
    [{ code: '12345' }, "'code': wanted exactly 6 characters, found text of 5 characters", 'code'],
    [{ id: 'x' }, "'id': wanted an id: mch_ and 27 letters or digits, found text of 1 character", 'id'],
    [{ url: 'x' }, "'url': wanted text of the format 'url', found text of 1 character", 'url'],
    [{ items: [] }, "'items': wanted at least 1 item, found a list of 0 items", 'items'],
    [{ items: ['a', 'b', 'c'] }, "'items': wanted at most 2 items, found a list of 3 items", 'items'],
    [
      { items: ['a', 'long'] },
      "'items.1': wanted at most 3 characters, found text of 4 characters",
      'items.1',
    ],
    [{ items: {} }, "'items': wanted a list, found an object", 'items'],
    [{ claims: [] }, "'claims': wanted an object, found a list of 0 items", 'claims'],
    [{ claims: { a: 'x' } }, "'claims.a': wanted a number, found text of 1 character", 'claims.a'],
    [
      { claims: { longer: 1 } },
      "'claims.longer': wanted a name that is at most 5 characters, found text of 6 characters",
      'claims.longer',
    ],
    [{ either: true }, "'either': wanted one of text, a number, found true", 'either'],
    [{ nested: { a: { b: 'x' } } }, "'nested.a.b': wanted a number, found text of 1 character", 'nested.a.b'],
    [{ unknown: 1 }, "the input: wanted no other fields, found 'unknown'", 'unknown'],
    [{ b: 1, a: 2 }, "the input: wanted no other fields, found 'b', 'a'", 'b'],
    [[], 'the input: wanted an object, found a list of 0 items', undefined],
    ['text', 'the input: wanted an object, found text of 4 characters', undefined],
    [undefined, 'the input: wanted an object, found nothing', undefined],
  ])('%j', (input, message, field) => {
    expect(told(schema, input)).toEqual([`Cannot accept ${message}`, field]);
  });

  it('tells only the first thing wrong', () => {
    expect(told(schema, { name: 1, count: 'x' })[1]).toBe('name');
  });

  it('cuts the names of unknown fields, shows only those that print, and not more than five', () => {
    const long = 'k'.repeat(10_000);
    expect(told(schema, { [long]: 1 })).toEqual([
      `Cannot accept the input: wanted no other fields, found '${'k'.repeat(64)}'`,
      'k'.repeat(64),
    ]);
    expect(told(schema, { 'new\nline\u202e': 1 })).toEqual([
      "Cannot accept the input: wanted no other fields, found '(unprintable)'",
      '(unprintable)',
    ]);
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`k${i}`, i]));
    expect(told(schema, many)[0]).toMatch(/found 'k0', 'k1', 'k2', 'k3', 'k4'$/);
    expect(told(schema, { claims: { [`\u0007${long}`]: 1 } })[1]).toBe('claims.(unprintable)');
  });

  it('never repeats a text that was given', () => {
    const secret = 'hunter2-hunter2';
    const wrong = [
      ...Object.keys(schema.shape).map((field) => ({ [field]: secret.repeat(100) })),
      { items: [secret] },
      { claims: { a: secret } },
      { nested: { a: { b: secret } } },
      { unknown: secret },
      secret,
      [secret],
    ];
    for (const input of wrong) {
      if (schema.safeParse(input).success) continue;
      expect(told(schema, input).join(' ')).not.toContain('hunter2');
    }
    expect(told(z.strictObject({ credential }), { credential: [secret] })[0]).not.toContain('hunter2');
  });

  it('keeps the code of a refusal that arose while parsing', () => {
    const parse = () => createApiKeyInput.parse({ name: 'ci', subject: 'user_1', claims: { sub: 'x' } });
    expect(parse).toThrow(expect.objectContaining({ code: 'reserved_claim' }));
  });
});

describe('translate()', () => {
  const codeOf = (error: unknown) => translate(error, 'req_1').code;
  const sqlite = (code: string) => Object.assign(new Error(code), { code });
  const wrapped = (cause: unknown) => new Error('Failed query: select secrets', { cause });

  it('keeps a refusal of ours and adds the request id', () => {
    const refusal = new CountersignError('name_taken', 'Another machine is called so', { field: 'name' });
    expect(translate(refusal, 'req_1')).toMatchObject({
      code: 'name_taken',
      status: 409,
      message: 'Another machine is called so',
      field: 'name',
      requestId: 'req_1',
    });
    const wait = new CountersignError('rate_limited', 'Too often', { retryAfterMs: 1_500 });
    expect(translate(wait, 'req_1')).toMatchObject({ status: 429, retryAfterMs: 1_500 });
  });

  it.each([
    [new StoreError('full', 'x'), 'storage_full'],
    [new StoreError('unavailable', 'x'), 'unavailable'],
    [wrapped(new StoreError('outcome_unknown', 'x', { cause: sqlite('ECONNRESET') })), 'outcome_unknown'],
    [wrapped(sqlite('SQLITE_FULL')), 'storage_full'],
    [wrapped(sqlite('ECONNREFUSED')), 'unavailable'],
    [wrapped(sqlite('SQLITE_CONSTRAINT_UNIQUE')), 'already_exists'],
    [wrapped(sqlite('23505')), 'already_exists'],
    [wrapped(sqlite('42P01')), 'internal'],
    [new RangeError('Maximum call stack size exceeded'), 'internal'],
    ['a text that was thrown', 'internal'],
    [undefined, 'internal'],
    [new TRPCError({ code: 'INTERNAL_SERVER_ERROR', cause: new Error('x') }), 'internal'],
    [new TRPCError({ code: 'BAD_REQUEST', cause: new CountersignError('forbidden', 'x') }), 'forbidden'],
  ])('%s is %s', (error, code) => {
    expect(codeOf(error)).toBe(code);
  });

  it('says nothing of an error that it does not know', () => {
    const error = wrapped(new Error('password=hunter2 at /srv/countersign/server/main.ts:1'));
    const { message, requestId } = translate(error, 'req_1');
    expect(message).toBe('The server failed; the request id finds it in the logs');
    expect(requestId).toBe('req_1');
  });
});

describeOnEachDialect('tRPC requests', (dialect) => {
  /** Asks as a transport does, and answers the status and what is told of each error. */
  async function ask(deps: TestDeps, path: string, init: RequestInit & { body?: string } = {}) {
    const response = await fetchRequestHandler({
      endpoint: '/trpc',
      router: appRouter,
      allowMethodOverride: true,
      maxBatchSize: 50,
      req: new Request(`http://127.0.0.1/trpc/${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${deps.adminKey}` },
        ...init,
      }),
      createContext: ({ req }) => ({
        deps,
        authorization: req.headers.get('authorization') ?? undefined,
        requestId: 'req_1',
      }),
    });
    const text = await response.text();
    expect(text).not.toMatch(/"stack"|node_modules|TRPCError/);
    const answers = [JSON.parse(text)].flat() as { error?: { message: string; data: ErrorData } }[];
    return { status: response.status, answers };
  }

  const told = async (asking: ReturnType<typeof ask>) => {
    const { status, answers } = await asking;
    return [status, answers[0]?.error?.data.code];
  };

  it('each way of asking wrongly has its code and status', async () => {
    const deps = await openTestDeps(dialect);
    const asked = (path: string, init?: RequestInit & { body?: string }) => told(ask(deps, path, init));
    const json = { authorization: `Bearer ${deps.adminKey}` };
    expect(await asked('machines.create', { body: '{"name":' })).toEqual([400, 'malformed_json']);
    expect(await asked('machines.create', { body: '{"name":1}' })).toEqual([400, 'invalid_input']);
    expect(await asked('machines.promote', { body: '{}' })).toEqual([404, 'not_found']);
    expect(await asked('toString', { body: '{}' })).toEqual([404, 'not_found']);
    expect(await asked('machines.create', { method: 'GET' })).toEqual([405, 'method_not_allowed']);
    expect(
      await asked('machines.create', { body: 'name=x', headers: { ...json, 'content-type': 'text/plain' } }),
    ).toEqual([415, 'unsupported_media_type']);
    const many = (calls: number) => `${Array(calls).fill('machines.create').join(',')}?batch=1`;
    expect(await asked(many(7000), { body: '{}' })).toEqual([400, 'batch_too_large']);
    expect(await asked(many(51), { body: '{}' })).toEqual([400, 'batch_too_large']);
    expect(await asked(many(2), { body: '[]' })).toEqual([400, 'invalid_input']);
    expect(await asked('machines.create,machines.list?batch=1', { body: '{}' })).toEqual([
      400,
      'invalid_input',
    ]);
    expect(await asked('machines.create', { body: '{}', headers: {} })).toEqual([
      415,
      'unsupported_media_type',
    ]);
    expect((await ask(deps, 'machines.list', { body: '{}' })).status).toBe(200);
  });

  it('an error carries code, status, request id, path and field, and says what was found', async () => {
    const deps = await openTestDeps(dialect);
    const { answers } = await ask(deps, 'machines.create', {
      body: JSON.stringify({ name: 'x'.repeat(300) }),
    });
    expect(answers[0]?.error).toMatchObject({
      message: "Cannot accept 'name': wanted at most 255 characters, found text of 300 characters",
      data: {
        code: 'invalid_input',
        httpStatus: 400,
        requestId: 'req_1',
        path: 'machines.create',
        field: 'name',
      },
    });
  });

  it('a rate limit has its status, and says in which time to come again', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newMachine(deps, 'billing');
    await updateMachine(deps, callerWith('admin'), { id, mintsPerMinuteMax: 1 });
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${secret}` };
    const mint = () => ask(deps, 'm2mTokens.create', { body: '{}', headers });
    expect((await mint()).status).toBe(200);
    const { status, answers } = await mint();
    expect(status).toBe(429);
    expect(answers[0]?.error?.data).toMatchObject({
      code: 'rate_limited',
      httpStatus: 429,
      retryAfterMs: 60_000,
    });
  });

  it('claims nested a thousand levels deep are refused as an input, not as a failure', async () => {
    const deps = await openTestDeps(dialect);
    const claims = `{"deep":${'['.repeat(1000)}${']'.repeat(1000)}}`;
    const body = `{"name":"ci","subject":"user_1","claims":${claims}}`;
    expect(await told(ask(deps, 'apiKeys.create', { body }))).toEqual([400, 'invalid_input']);
    const reserved = '{"name":"ci","subject":"user_1","claims":{"__proto__":{"sub":"x"}}}';
    expect(await told(ask(deps, 'apiKeys.create', { body: reserved }))).toEqual([400, 'reserved_claim']);
  });
});
