import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PREFIXES } from '../../../server/crypto/format.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import {
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  getApiKey,
  revokeApiKey,
  revokeApiKeyByValue,
  revokeApiKeyByValueInput,
  revokeApiKeyInput,
  rotateApiKey,
  rotateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createKeyPolicy,
  createKeyPolicyInput,
  deleteKeyPolicy,
  updateKeyPolicy,
  updateKeyPolicyInput,
} from '../../../server/domain/key-policies.ts';
import {
  createKeyPrefix,
  createKeyPrefixInput,
  createKeyShapes,
  deleteKeyPrefix,
  type ImportedShape,
  listKeyPrefixes,
  listKeyPrefixesInput,
  registerImportedShapes,
} from '../../../server/domain/key-shapes.ts';
import { findOwner, installSecret } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');

const createPrefix = (deps: TestDeps, prefix: string) =>
  createKeyPrefix(deps, admin, createKeyPrefixInput.parse({ prefix }));
const prefixes = async (deps: TestDeps) =>
  (await listKeyPrefixes(deps, listKeyPrefixesInput.parse({}))).data.map(({ prefix }) => prefix);
const createPolicy = (deps: TestDeps, more: Record<string, unknown> = {}) =>
  createKeyPolicy(deps, admin, createKeyPolicyInput.parse({ name: 'standard', ...more }));
const createKey = (deps: TestDeps, more: Record<string, unknown> = {}) =>
  createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1', ...more }));
const outcomeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'ok',
    (error: { code: string }) => error.code,
  );

async function register(deps: TestDeps, ...shapes: Partial<ImportedShape>[]) {
  const whole = shapes.map((shape) => ({ ownerKind: 'api_key' as const, prefix: '', length: 0, ...shape }));
  await deps.store.tx((tx) => registerImportedShapes(tx, whole, deps.now()));
  deps.shapes.forget();
}

/** The last character of a value changed: its checksum does not fit any more. */
const mistyped = (value: string) => value.slice(0, -1) + (value.endsWith('a') ? 'b' : 'a');

describe('createKeyPrefixInput', () => {
  it('takes 2 to 32 lower case letters, digits and underscores, the last of them an underscore', () => {
    const isTaken = (prefix: string) => createKeyPrefixInput.safeParse({ prefix }).success;
    for (const prefix of ['a_', '0_', 'acme_', 'ak_live_', `${'a'.repeat(31)}_`])
      expect([prefix, isTaken(prefix)]).toEqual([prefix, true]);
    for (const prefix of ['', '_', 'a', 'acme', 'Acme_', 'ac-me_', 'acmé_', 'a_\n', `${'a'.repeat(32)}_`])
      expect([prefix, isTaken(prefix)]).toEqual([prefix, false]);
  });
});

describeOnEachDialect('key prefixes', (dialect) => {
  it('createKeyPrefix() registers a prefix, and says so once', async () => {
    const deps = await openTestDeps(dialect);
    const { length } = (await listEvents(deps, { after: 0, limit: 500 })).data;
    expect(
      await createKeyPrefix(
        deps,
        admin,
        createKeyPrefixInput.parse({ prefix: 'acme_', description: 'of old' }),
      ),
    ).toEqual({ prefix: 'acme_', description: 'of old', createdAt: deps.clock.now });
    await expect(createPrefix(deps, 'acme_')).rejects.toMatchObject({ code: 'already_exists' });
    expect(await prefixes(deps)).toEqual(['acme_']);
    expect((await listEvents(deps, { after: length, limit: 500 })).data).toMatchObject([
      { type: 'key_prefix.created', objectId: 'acme_' },
    ]);
  });

  it('createKeyPrefix() refuses what begins as a reserved prefix does, save longer than ak_', async () => {
    const deps = await openTestDeps(dialect);
    for (const reserved of Object.values(PREFIXES)) {
      await expect(createPrefix(deps, reserved)).rejects.toMatchObject({
        code: 'invalid_input',
        field: 'prefix',
      });
      expect([reserved, await outcomeOf(createPrefix(deps, `${reserved}live_`))]).toEqual([
        reserved,
        reserved === 'ak_' ? 'ok' : 'invalid_input',
      ]);
    }
    expect(await prefixes(deps)).toEqual(['ak_live_']);
  });

  it('createKeyPrefix() refuses a prefix that is the beginning of another, or has another as its beginning', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_live_');
    for (const prefix of ['acme_', 'acme_live_eu_'])
      await expect(createPrefix(deps, prefix)).rejects.toMatchObject({ code: 'already_exists' });
    await createPrefix(deps, 'acme_test_');
    await createPrefix(deps, 'acme2_');
    expect(await prefixes(deps)).toEqual(['acme2_', 'acme_live_', 'acme_test_']);
  });

  it('of many that begin alike and are registered at once, exactly one is', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 10; round++) {
      const wanted = ['', 'b_', 'b_c_', 'b_c_d_', 'b_c_d_e_'].map((rest) => `a${round}_${rest}`);
      const outcomes = await Promise.all(wanted.map((prefix) => outcomeOf(createPrefix(deps, prefix))));
      expect(outcomes.sort()).toEqual([...Array(4).fill('already_exists'), 'ok']);
    }
    expect(await prefixes(deps)).toHaveLength(10);
  });

  it('createKeyPrefix() takes a hundred prefixes and no more', async () => {
    const deps = await openTestDeps(dialect);
    await deps.store.tx(({ db, tables }) =>
      db
        .insert(tables.keyPrefixes)
        .values(Array.from({ length: 99 }, (_, i) => ({ prefix: `p${i}_`, created_at: 0 }))),
    );
    await createPrefix(deps, 'last_');
    await expect(createPrefix(deps, 'more_')).rejects.toMatchObject({ code: 'limit_reached' });
    const page = await listKeyPrefixes(deps, listKeyPrefixesInput.parse({ limit: 60 }));
    const rest = await listKeyPrefixes(
      deps,
      listKeyPrefixesInput.parse({ limit: 60, cursor: page.nextCursor }),
    );
    expect(rest.nextCursor).toBeNull();
    expect(new Set([...page.data, ...rest.data].map(({ prefix }) => prefix)).size).toBe(100);
  });

  it('deleteKeyPrefix() refuses while a policy gives it or a key has such a value, even a revoked key', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_');
    const policy = await createPolicy(deps, { prefix: 'acme_' });
    const remove = () => deleteKeyPrefix(deps, admin, { prefix: 'acme_' });
    await expect(remove()).rejects.toMatchObject({ code: 'in_use' });
    const key = await createKey(deps, { policyId: policy.id });
    await updateKeyPolicy(deps, admin, updateKeyPolicyInput.parse({ id: policy.id, prefix: 'ak_' }));
    await expect(remove()).rejects.toMatchObject({ code: 'in_use' });
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id: key.id }));
    await expect(remove()).rejects.toMatchObject({ code: 'in_use' });
    expect(await prefixes(deps)).toEqual(['acme_']);
    await deleteApiKey(deps, admin, key.id);
    expect(await remove()).toEqual({ prefix: 'acme_', deleted: true });
    await expect(remove()).rejects.toMatchObject({ code: 'not_found' });
  });

  it('deleteKeyPrefix() is not held up by values that begin nearly so', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_');
    for (const prefix of ['acme2_', 'acmea_', 'acmf_']) {
      await createPrefix(deps, prefix);
      const { id } = await createPolicy(deps, { name: prefix, prefix });
      await createKey(deps, { name: prefix, policyId: id });
      await deleteKeyPolicy(deps, admin, { id });
    }
    expect(await deleteKeyPrefix(deps, admin, { prefix: 'acme_' })).toMatchObject({ deleted: true });
  });

  it('no policy is left with a prefix that is deleted while it is created', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const prefix = `round${round}_`;
      await createPrefix(deps, prefix);
      const wanted = createPolicy(deps, { name: prefix, prefix });
      const [created, deleted] = await Promise.all([
        outcomeOf(wanted),
        outcomeOf(deleteKeyPrefix(deps, admin, { prefix })),
      ]);
      outcomes.add(`${created} ${deleted}`);
    }
    for (const outcome of outcomes) expect(['ok in_use', 'invalid_input ok']).toContain(outcome);
  });

  it('no key is left with a prefix that is deleted while it is created', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 20; round++) {
      const prefix = `round${round}_`;
      await createPrefix(deps, prefix);
      const { id } = await createPolicy(deps, { name: prefix, prefix });
      const removal = async () => {
        await deleteKeyPolicy(deps, admin, { id });
        await deleteKeyPrefix(deps, admin, { prefix });
      };
      const [created, removed] = await Promise.all([
        outcomeOf(createKey(deps, { name: prefix, policyId: id })),
        outcomeOf(removal()),
      ]);
      expect(['ok in_use', 'not_found ok']).toContain(`${created} ${removed}`);
    }
  });
});

describeOnEachDialect('createKeyShapes()', (dialect) => {
  it('find() knows values of a registered prefix by prefix and checksum', async () => {
    const deps = await openTestDeps(dialect);
    for (const prefix of ['acme_', 'ak_live_']) {
      const { value } = newValue(prefix);
      expect(await deps.shapes.find(value)).toBeNull();
      await createPrefix(deps, prefix);
      expect(await deps.shapes.find(value)).toEqual({ ownerKind: 'api_key', imported: false });
      expect(await deps.shapes.find(value, 'machine')).toBeNull();
      expect(await deps.shapes.find(mistyped(value))).toBeNull();
    }
    expect(await deps.shapes.find(newValue('other_').value)).toBeNull();
    await deleteKeyPrefix(deps, admin, { prefix: 'acme_' });
    expect(await deps.shapes.find(newValue('acme_').value)).toBeNull();
  });

  it('find() knows imported values by beginning, by length, or by both', async () => {
    const deps = await openTestDeps(dialect);
    await register(
      deps,
      { prefix: 'old-' },
      { length: 32 },
      { prefix: 'svc.', length: 20, ownerKind: 'machine' },
    );
    const apiKey = { ownerKind: 'api_key', imported: true };
    expect(await deps.shapes.find('old-x')).toEqual(apiKey);
    expect(await deps.shapes.find('old-'.padEnd(500, 'x'))).toEqual(apiKey);
    expect(await deps.shapes.find('x'.repeat(32))).toEqual(apiKey);
    expect(await deps.shapes.find('x'.repeat(31))).toBeNull();
    expect(await deps.shapes.find('svc.'.padEnd(20, 'x'))).toEqual({ ownerKind: 'machine', imported: true });
    expect(await deps.shapes.find('svc.'.padEnd(20, 'x'), 'api_key')).toBeNull();
    expect(await deps.shapes.find('svc.'.padEnd(21, 'x'))).toBeNull();
    expect(await deps.shapes.find('')).toBeNull();
  });

  it('find() takes nothing that begins with a reserved prefix for imported, save where a shape names ak_', async () => {
    const deps = await openTestDeps(dialect);
    const values = Object.values(PREFIXES).map((prefix) => newValue(prefix).value);
    await register(deps, ...values.map(({ length }) => ({ length })));
    const ofEach = async () => {
      const found: unknown[] = [];
      for (const value of values)
        found.push(await deps.shapes.find(value), await deps.shapes.find(mistyped(value)));
      return found.filter((shape) => shape !== null);
    };
    expect(await ofEach()).toEqual([]);
    await register(deps, { prefix: 'ak_', ownerKind: 'machine' });
    expect(await ofEach()).toEqual([{ ownerKind: 'machine', imported: true }]);
  });

  it('find() tells imported API keys and machine secrets of one shape apart only by what is asked for', async () => {
    const deps = await openTestDeps(dialect);
    await register(deps, { prefix: 'ak_', ownerKind: 'machine' }, { prefix: 'ak_', ownerKind: 'api_key' });
    const value = `ak_${'x'.repeat(40)}`;
    expect(await deps.shapes.find(value)).toMatchObject({ ownerKind: 'api_key' });
    expect(await deps.shapes.find(value, 'api_key')).toMatchObject({ ownerKind: 'api_key' });
    expect(await deps.shapes.find(value, 'machine')).toMatchObject({ ownerKind: 'machine' });
  });

  it('find() prefers our format where imported values begin with the same', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_');
    await register(deps, { prefix: 'acme_' });
    const { value } = newValue('acme_');
    expect(await deps.shapes.find(value)).toMatchObject({ imported: false });
    expect(await deps.shapes.find(mistyped(value))).toMatchObject({ imported: true });
  });

  it('reads the set again once it is five seconds old, and for an unknown value twice a second', async () => {
    const deps = await openTestDeps(dialect);
    const clock = { ms: 0 };
    const shapes = createKeyShapes(deps.store, () => clock.ms);
    const [acme, other] = [newValue('acme_').value, newValue('other_').value];
    expect(await shapes.find(acme)).toBeNull();
    await createPrefix(deps, 'acme_');
    clock.ms = 499;
    expect(await shapes.find(acme)).toBeNull();
    clock.ms = 500;
    expect(await shapes.find(acme)).not.toBeNull();
    await deleteKeyPrefix(deps, admin, { prefix: 'acme_' });
    clock.ms = 5_499;
    expect(await shapes.find(acme)).not.toBeNull();
    clock.ms = 5_500;
    expect(await shapes.find(acme)).toBeNull();
    await createPrefix(deps, 'other_');
    expect(await shapes.find(other)).toBeNull();
    shapes.forget();
    expect(await shapes.find(other)).not.toBeNull();
  });

  it('those who need the set at once read it once, and after a failure it is read again', async () => {
    const deps = await openTestDeps(dialect);
    let reads = 0;
    const store = {
      ...deps.store,
      get read() {
        if (++reads === 1) throw new Error('down');
        return deps.store.read;
      },
    };
    const shapes = createKeyShapes(store, () => 0);
    await expect(shapes.find('unknown')).rejects.toThrow('down');
    await Promise.all(Array.from({ length: 20 }, () => shapes.find('unknown')));
    expect(reads).toBe(2);
  });

  it('values of our own kinds are told without reading anything', async () => {
    const deps = await openTestDeps(dialect);
    const store = {
      ...deps.store,
      get read(): never {
        throw new Error('read');
      },
    };
    const shapes = createKeyShapes(store);
    for (const prefix of Object.values(PREFIXES))
      expect(await shapes.find(newValue(prefix).value)).toBeNull();
    await expect(shapes.find('unknown')).rejects.toThrow('read');
  });
});

describe('createKeyShapes() of any registered prefixes', () => {
  it('finds exactly the values of those', async () => {
    const deps = await openTestDeps('sqlite');
    const registered: string[] = [];
    const anyPrefix = fc.stringMatching(/^[a-c_]{0,3}_$/).filter((prefix) => prefix.length >= 2);
    await fc.assert(
      fc.asyncProperty(anyPrefix, anyPrefix, async (wanted, asked) => {
        if ((await outcomeOf(createPrefix(deps, wanted))) === 'ok') registered.push(wanted);
        const found = await deps.shapes.find(newValue(asked).value);
        expect([asked, found !== null]).toEqual([asked, registered.includes(asked)]);
        for (const one of registered)
          expect(registered.filter((other) => other !== one && other.startsWith(one))).toEqual([]);
      }),
      { numRuns: 200 },
    );
    expect(registered.length).toBeGreaterThan(2);
  });
});

describeOnEachDialect('registerImportedShapes()', (dialect) => {
  it('keeps what is registered, and registers the rest', async () => {
    const deps = await openTestDeps(dialect);
    await register(deps, { prefix: 'old-' }, { prefix: 'old-' }, { length: 8 });
    await register(deps, { prefix: 'old-' }, { prefix: 'new-' });
    await register(deps);
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.importedShapes);
    expect(rows.map(({ prefix, length }) => `${prefix}${length}`).sort()).toEqual(['8', 'new-0', 'old-0']);
  });

  it('refuses a shape that says nothing, and one that can never be asked for', async () => {
    const deps = await openTestDeps(dialect);
    for (const prefix of ['', 'sk_', 'msk_live_', 'mt_', 'oat_x', 'ort_', 'pnl_'])
      await expect(register(deps, { prefix: 'ok-' }, { prefix })).rejects.toMatchObject({
        code: 'invalid_input',
      });
    await expect(
      register(deps, ...Array.from({ length: 101 }, (_, i) => ({ length: i + 1 }))),
    ).rejects.toMatchObject({ code: 'limit_reached' });
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.importedShapes)).toEqual([]);
  });
});

describeOnEachDialect('keys of another shape', (dialect) => {
  it('have the prefix of their policy from creation on, through every rotation', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_');
    const policy = await createPolicy(deps, { prefix: 'acme_', isDefault: true });
    const { secret = '', ...key } = await createKey(deps);
    expect(secret).toMatch(/^acme_[0-9A-Za-z]{49}$/);
    expect(key).toMatchObject({ start: secret.slice(0, 11), policyId: policy.id });
    await updateKeyPolicy(deps, admin, updateKeyPolicyInput.parse({ id: policy.id, prefix: 'ak_' }));
    const rotated = await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id: key.id }));
    expect(rotated.secret).toMatch(/^acme_[0-9A-Za-z]{49}$/);
    expect(await findOwner(deps, rotated.secret ?? '')).toEqual({ kind: 'api_key', id: key.id });
    expect((await createKey(deps, { name: 'next' })).secret).toMatch(/^ak_/);
  });

  it('are revoked by value, imported ones too, and nothing is looked up by a value of no known shape', async () => {
    const deps = await openTestDeps(dialect);
    await createPrefix(deps, 'acme_');
    await createPolicy(deps, { prefix: 'acme_', isDefault: true });
    const ours = await createKey(deps);
    const imported = await createKey(deps, { name: 'imported' });
    const value = 'old-0123456789';
    await deps.store.tx((tx) => installSecret(tx, deps, { kind: 'api_key', id: imported.id }, value, 'old-'));
    const revokeByValue = (given: string) =>
      revokeApiKeyByValue(deps, admin, anywhere, revokeApiKeyByValueInput.parse({ value: given }));
    const state = async (id: string) => (await getApiKey(deps, { id })).state;
    expect(await revokeByValue(ours.secret ?? '')).toEqual({ accepted: true });
    expect(await state(ours.id)).toBe('revoked');
    expect(await revokeByValue(value)).toEqual({ accepted: true });
    expect(await state(imported.id)).toBe('live');
    await register(deps, { prefix: 'old-' });
    await revokeByValue(value);
    expect(await state(imported.id)).toBe('revoked');
  });
});
