import { describe, expect, it } from 'vitest';
import { authenticate, authorize, bearerValue } from '../../server/authenticate.ts';
import { newValue } from '../../server/crypto/hashing.ts';
import type { Deps } from '../../server/deps.ts';
import { describeOnEachDialect, openTestDeps } from '../support/deps.ts';
import { newMachine } from '../support/machines.ts';

const from = (deps: Deps, authorization: string, address = '127.0.0.1') => ({
  deps,
  authorization,
  address: () => address,
  requestId: 'req_1',
});

describe('bearerValue()', () => {
  it.each([
    ['Bearer abc', 'abc'],
    ['bearer abc', 'abc'],
    ['BEARER   abc', 'abc'],
    [`Bearer ${'a'.repeat(16_384)}`, 'a'.repeat(16_384)],
  ])('takes the value of %.20s', (header, value) => {
    expect(bearerValue(header)).toBe(value);
  });

  it.each([
    undefined,
    '',
    'abc',
    'Bearer',
    'Bearer ',
    'Bearerabc',
    'Bearer\tabc',
    ' Bearer abc',
    'Bearer abc ',
    'Bearer abc def',
    'Bearer abc, Bearer def',
    'Bearer abc\r\nx-header: y',
    'Bearer ab\0c',
    'Bearer äbc',
    'Basic YWJjOmRlZg==',
    `Bearer ${'a'.repeat(16_385)}`,
  ])('takes none of %j', (header) => {
    expect(bearerValue(header)).toBeNull();
  });
});

describe('authorize()', () => {
  it('tells who presented nothing from who presented something that is nobody', () => {
    expect(() => authorize(null, 'events.list', false)).toThrow(
      expect.objectContaining({ code: 'unauthenticated', message: expect.stringContaining('found none') }),
    );
    expect(() => authorize(null, 'events.list', true)).toThrow(
      expect.objectContaining({ code: 'unauthenticated', message: expect.stringContaining('is not a live') }),
    );
  });

  it('names the role and the procedure that do not fit', () => {
    expect(() => authorize({ kind: 'secret_key', id: 'sk_1', role: 'verify' }, 'events.list', true)).toThrow(
      expect.objectContaining({
        code: 'forbidden',
        message: "A secret key with the role 'verify' may not call 'events.list'",
      }),
    );
  });
});

describeOnEachDialect('authenticate()', (dialect) => {
  it('answers the caller with the id of its request', async () => {
    const deps = await openTestDeps(dialect);
    const caller = await authenticate(from(deps, `Bearer ${deps.adminKey}`), 'events.list');
    expect(caller).toEqual({
      principal: { kind: 'secret_key', id: expect.stringMatching(/^sk_/), role: 'admin' },
      requestId: 'req_1',
    });
  });

  it('looks at the header alone and never repeats what was in it', async () => {
    const deps = await openTestDeps(dialect);
    const unknown = newValue('sk_').value;
    const refusal = await authenticate(from(deps, `Bearer ${unknown}`), 'events.list').catch(
      (error: unknown) => error,
    );
    expect(refusal).toMatchObject({ code: 'unauthenticated' });
    expect(String(refusal)).not.toContain(unknown.slice(0, 10));
    await expect(authenticate(from(deps, deps.adminKey), 'events.list')).rejects.toMatchObject({
      code: 'unauthenticated',
    });
  });

  it('counts the use of a credential that was let in, once, and none that was not', async () => {
    const deps = await openTestDeps(dialect);
    const machine = await newMachine(deps, 'billing');
    await authenticate(from(deps, `Bearer ${machine.secret}`), 'm2mTokens.list');
    await expect(authenticate(from(deps, `Bearer ${machine.secret}`), 'machines.list')).rejects.toMatchObject(
      { code: 'forbidden' },
    );
    await authenticate(from(deps, `Bearer ${machine.secret}`), 'credentials.verify');
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.usage)).toMatchObject([
      { credential_id: machine.id, valid_count: 1, refused_count: 0 },
    ]);
    expect(await db.select().from(tables.machines)).toMatchObject([{ last_used_at: deps.clock.now }]);
  });
});
