import { hash, randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import { importApiKeys, importApiKeysInput } from '../../../server/domain/api-key-imports.ts';
import { importMachine, importMachineInput } from '../../../server/domain/machine-imports.ts';
import { getMachine, rotateMachineSecret } from '../../../server/domain/machines.ts';
import { findCaller, findOwner } from '../../../server/domain/secrets.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';

const admin = callerWith('admin');
const ID = `mch_${'7'.repeat(27)}`;
const foreign = () => `ak_${randomBytes(30).toString('hex')}`;
const sha256 = (value: string) => hash('sha256', value, 'hex');

const importing = (deps: TestDeps, secret: string, more: Record<string, unknown> = {}) =>
  importMachine(
    deps,
    admin,
    importMachineInput.parse({
      id: ID,
      name: 'billing',
      hash: sha256(secret),
      shape: { prefix: 'ak_', length: secret.length },
      ...more,
    }),
  );

const importKey = (deps: TestDeps, value: string) =>
  importApiKeys(
    deps,
    admin,
    importApiKeysInput.parse({
      items: [{ hash: sha256(value), subject: 'user_1', name: 'ci' }],
      shapes: [{ prefix: 'ak_', length: value.length }],
    }),
  );

describeOnEachDialect('imports of machines', (dialect) => {
  it('importMachine() has the machine called by the secret it had, with what is told of it', async () => {
    const deps = await openTestDeps(dialect);
    const secret = foreign();
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    const createdAt = deps.clock.now - 1000;
    const told = { defaultTokenTtlSeconds: 315_360_000, createdAt, start: 'ak_012345' };
    expect(await importing(deps, secret, told)).toEqual({ id: ID, outcome: 'imported' });
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({
      kind: 'machine',
      id: ID,
      mayVerify: false,
    });
    expect(await getMachine(deps, { id: ID })).toMatchObject({
      name: 'billing',
      createdAt,
      defaultTokenTtlSeconds: 315_360_000,
      maxTokenTtlSeconds: 315_360_000,
    });
  });

  it('importMachine() again changes nothing, also after the secret was rotated away', async () => {
    const deps = await openTestDeps(dialect);
    const secret = foreign();
    await importing(deps, secret);
    const rotated = await rotateMachineSecret(deps, admin, { id: ID, compromised: true });
    expect(rotated.secret).toMatch(/^msk_/);
    expect(await importing(deps, secret)).toEqual({ id: ID, outcome: 'exists' });
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    expect(await findCaller(deps, rotated.secret ?? '', anywhere)).toMatchObject({ id: ID });
  });

  it('takes no API key for a machine and no machine for an API key, whatever they look like', async () => {
    const deps = await openTestDeps(dialect);
    const [ofMachine, ofKey] = [foreign(), foreign()];
    await importing(deps, ofMachine);
    await importKey(deps, ofKey);
    expect(await findCaller(deps, ofKey, anywhere)).toBeNull();
    const verify = (credential: string) => call(deps, deps.adminKey, 'credentials.verify', { credential });
    expect(await verify(ofKey)).toMatchObject({ valid: true, subject: 'user_1' });
    expect(await verify(ofMachine)).toEqual({ valid: false, reason: 'unknown' });
    const revoking = { value: ofMachine };
    expect(await call(deps, deps.adminKey, 'apiKeys.revokeByValue', revoking)).toEqual({ accepted: true });
    expect(await findCaller(deps, ofMachine, anywhere)).not.toBeNull();
    expect(await outcomeOf(call(deps, ofKey, 'm2mTokens.list', {}))).toBe('unauthenticated');
    expect(await outcomeOf(call(deps, ofMachine, 'm2mTokens.list', {}))).toBe('ok');
    expect(await outcomeOf(call(deps, ofMachine, 'machines.list', {}))).toBe('forbidden');
  });

  it('looks up no caller of a shape that no machine was imported with', async () => {
    const deps = await openTestDeps(dialect);
    const secret = foreign();
    // An import of API keys makes nobody a caller.
    await importKey(deps, foreign());
    await importing(deps, secret, { shape: { prefix: 'ak_', length: secret.length + 1 } });
    expect(await findOwner(deps, secret)).toEqual({ kind: 'machine', id: ID });
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
  });

  it('importMachine() refuses a name and a secret that another has, and leaves nothing behind', async () => {
    const deps = await openTestDeps(dialect);
    const other = await newMachine(deps, 'ledger');
    const key = foreign();
    await importKey(deps, key);
    await expect(importing(deps, foreign(), { name: 'ledger' })).rejects.toMatchObject({
      code: 'name_taken',
    });
    for (const taken of [other.secret, key])
      await expect(importing(deps, taken, { shape: { prefix: 'ak_', length: 63 } })).rejects.toMatchObject({
        code: 'already_exists',
        field: 'hash',
      });
    await expect(getMachine(deps, { id: ID })).rejects.toMatchObject({ code: 'not_found' });
    const { db, tables } = deps.store.read;
    const shapes = await db.select().from(tables.importedShapes);
    expect(shapes.map(({ owner_kind }) => owner_kind)).toEqual(['api_key']);
  });

  it.each([
    ['a prefix of secret keys', { shape: { prefix: 'sk_live_', length: 63 } }, 'prefix'],
    ['a prefix of tokens', { shape: { prefix: 'mt_', length: 63 } }, 'prefix'],
    ['a creation that is yet to come', { createdAt: Date.UTC(2040, 1, 1) }, 'createdAt'],
    [
      'a default beyond the longest lifetime',
      { defaultTokenTtlSeconds: 60, maxTokenTtlSeconds: 59 },
      'defaultTokenTtlSeconds',
    ],
  ])('importMachine() refuses %s', async (_, more, field) => {
    const deps = await openTestDeps(dialect);
    await expect(importing(deps, foreign(), more)).rejects.toMatchObject({ code: 'invalid_input', field });
  });

  it.each([
    [{ prefix: 'ak_' }],
    [{ length: 63 }],
    [{ prefix: 'a', length: 63 }],
    [{ prefix: 'ak_', length: 16 }],
  ])('takes no shape as wide as %j', (shape) => {
    const given = { id: ID, name: 'billing', hash: sha256('x'), shape };
    expect(importMachineInput.safeParse(given).success).toBe(false);
  });
});
