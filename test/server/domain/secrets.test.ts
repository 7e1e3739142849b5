import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import { newValue } from '../../../server/crypto/hashing.ts';
import { createApiKey, createApiKeyInput } from '../../../server/domain/api-keys.ts';
import {
  createMachine,
  createMachineInput,
  deleteMachine,
  updateMachine,
} from '../../../server/domain/machines.ts';
import { createSecretKey, createSecretKeyInput } from '../../../server/domain/secret-keys.ts';
import { couldBeCaller, findCaller, hasExpired, startsOf } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');
const secretKey = (deps: TestDeps, role: string) =>
  createSecretKey(deps, admin, createSecretKeyInput.parse({ name: role, role }));
const machine = (deps: TestDeps, name: string) =>
  createMachine(deps, admin, createMachineInput.parse({ name }));

describe('couldBeCaller()', () => {
  it.each([
    ['a secret key', newValue('sk_').value, true],
    ['a machine secret key', newValue('msk_').value, true],
    ['a bootstrap key, which has no checksum', `sk_${'a'.repeat(40)}`, true],
    ['an API key', newValue('ak_').value, false],
    ['an M2M token', newValue('mt_').value, false],
    ['a bootstrap key that is too short', `sk_${'a'.repeat(39)}`, false],
    ['a machine secret key cut by one', newValue('msk_').value.slice(0, -1), false],
    ['a machine secret key with one more', `${newValue('msk_').value}a`, false],
    ['an id', `sk_${'0'.repeat(32)}`, false],
    ['nothing', '', false],
  ])('%s', async (_, value, expected) => {
    const shapes = { find: async () => null, forget: () => {} };
    expect(await couldBeCaller({ shapes }, value)).toBe(expected);
  });
});

describe('hasExpired()', () => {
  it('is true from the instant of expiry on, and never without one', () => {
    expect([hasExpired(10, 9), hasExpired(10, 10), hasExpired(10, 11), hasExpired(null, 11)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });
});

describeOnEachDialect('findCaller()', (dialect) => {
  it('knows a secret key and a machine, and nobody by any other value', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await machine(deps, 'billing');
    await updateMachine(deps, admin, { id, mayVerify: true });
    const apiKey = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }),
    );
    expect(await findCaller(deps, deps.adminKey, anywhere)).toMatchObject({
      kind: 'secret_key',
      role: 'admin',
    });
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({ kind: 'machine', id, mayVerify: true });
    for (const value of [apiKey.secret ?? '', newValue('sk_').value, newValue('msk_').value, id, ''])
      expect(await findCaller(deps, value, anywhere)).toBeNull();
  });

  it('refuses what cannot be a credential of a caller before it reads anything', async () => {
    const deps = await openTestDeps(dialect);
    const unread: TestDeps = {
      ...deps,
      store: Object.defineProperty({ ...deps.store }, 'read', {
        get: () => {
          throw new Error('It was read');
        },
      }),
    };
    for (const value of [
      'garbage',
      newValue('msk_').value.toLowerCase(),
      newValue('ak_').value,
      `${deps.adminKey} `,
    ])
      expect(await findCaller(unread, value, anywhere)).toBeNull();
    await expect(findCaller(unread, deps.adminKey, anywhere)).rejects.toThrow('It was read');
  });

  it('makes nobody of a secret key whose role, expiry or id a writer to the database changed', async () => {
    const deps = await openTestDeps(dialect);
    const forgeries = [
      { role: 'admin' as const },
      { expires_at: deps.clock.now + 1 },
      { id: `sk_${'f'.repeat(32)}` },
    ];
    for (const forgery of forgeries) {
      const { id, secret = '' } = await secretKey(deps, 'verify');
      expect(await findCaller(deps, secret, anywhere)).toMatchObject({ role: 'verify' });
      await deps.store.tx(async ({ db, tables: { secretKeys, secrets } }) => {
        await db.update(secretKeys).set(forgery).where(eq(secretKeys.id, id));
        if (forgery.id)
          await db.update(secrets).set({ owner_id: forgery.id }).where(eq(secrets.owner_id, id));
      });
      expect(await findCaller(deps, secret, anywhere)).toBeNull();
    }
  });

  it('makes nobody of a value whose hash a writer to the database pointed at an admin', async () => {
    const deps = await openTestDeps(dialect);
    const own = await machine(deps, 'billing');
    const admins = await findCaller(deps, deps.adminKey, anywhere);
    const { secret: low = '', id: lowId } = await secretKey(deps, 'verify');
    await deps.store.tx(async ({ db, tables: { secrets } }) => {
      const toAdmin = { owner_kind: 'secret_key' as const, owner_id: admins?.id ?? '' };
      await db.update(secrets).set(toAdmin).where(eq(secrets.owner_id, own.id));
      await db.update(secrets).set(toAdmin).where(eq(secrets.owner_id, lowId));
    });
    expect(await findCaller(deps, own.secret ?? '', anywhere)).toBeNull();
    expect(await findCaller(deps, low, anywhere)).toBeNull();
    expect(await findCaller(deps, deps.adminKey, anywhere)).toEqual(admins);
  });

  it('makes nobody of a secret that is over, or whose owner is gone', async () => {
    const deps = await openTestDeps(dialect);
    const deleted = await machine(deps, 'deleted');
    await deleteMachine(deps, admin, deleted.id);
    const revoked = await machine(deps, 'revoked');
    const expired = await machine(deps, 'expired');
    await deps.store.tx(async ({ db, tables: { secrets } }) => {
      await db.update(secrets).set({ revoked_at: 1 }).where(eq(secrets.owner_id, revoked.id));
      await db.update(secrets).set({ expires_at: deps.clock.now }).where(eq(secrets.owner_id, expired.id));
    });
    for (const { secret = '' } of [deleted, revoked, expired])
      expect(await findCaller(deps, secret, anywhere)).toBeNull();
  });
});

describeOnEachDialect('secrets', (dialect) => {
  it('holds no value: only how it begins, and a hash that another installation cannot make', async () => {
    const deps = await openTestDeps(dialect);
    const other = await openTestDeps(dialect);
    const { secret = '' } = await machine(deps, 'billing');
    const { db, tables } = deps.store.read;
    const rows = JSON.stringify(await db.select().from(tables.secrets));
    expect(rows).not.toContain(secret.slice(0, 11));
    expect(rows).toContain(secret.slice(0, 10));
    expect(other.keyring.hash(secret)).not.toEqual(deps.keyring.hash(secret));
  });

  it('startsOf() shows the newest value of each owner', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await machine(deps, 'billing');
    await deps.store.tx(async ({ db, tables: { secrets } }) => {
      const [first] = await db.select().from(secrets).where(eq(secrets.owner_id, id));
      if (!first) throw new Error('The machine has no secret');
      const newest = { id: 'sec_2', hash: Buffer.alloc(32), start: 'msk_newest' };
      await db.insert(secrets).values({ ...first, ...newest, created_at: first.created_at + 1 });
    });
    expect(await startsOf(deps.store.read, 'machine', [id])).toEqual(new Map([[id, 'msk_newest']]));
    expect(await startsOf(deps.store.read, 'machine', [])).toEqual(new Map());
  });
});
