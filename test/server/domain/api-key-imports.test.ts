import { createHash, hash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import {
  type ImportOutcome,
  type ImportReport,
  importApiKeys,
  importApiKeysInput,
} from '../../../server/domain/api-key-imports.ts';
import {
  createApiKey,
  createApiKeyInput,
  getApiKey,
  listApiKeys,
  listApiKeysInput,
  revokeAllApiKeys,
  revokeAllApiKeysInput,
  revokeApiKey,
  revokeApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { findOwner } from '../../../server/domain/secrets.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';
import { newMachine } from '../../support/machines.ts';

const admin = callerWith('admin');
const HOUR = 3_600_000;

const sha256 = (value: string) => hash('sha256', value, 'hex');

/** As JSON brings it: of any shape. */
const importing = (deps: TestDeps, items: unknown[], more: Record<string, unknown> = {}) =>
  importApiKeys(deps, admin, importApiKeysInput.parse({ items, ...more }));

const item = (value: string, more: Record<string, unknown> = {}) => ({
  hash: sha256(value),
  subject: 'user_1',
  name: value,
  ...more,
});

const outcomes = ({ results }: ImportReport) => results.map(({ outcome }) => outcome);
const idOf = (outcome: ImportOutcome | undefined) =>
  outcome && 'id' in outcome ? outcome.id : expect.unreachable();
const codes = ({ results }: ImportReport) =>
  results.map((result) => (result.outcome === 'refused' ? [result.code, result.field] : result.outcome));

const eventsOf = async (deps: TestDeps) =>
  (await listEvents(deps, { after: 1, limit: 500 })).data.map(({ type, data }) => ({ type, data }));
const keysOf = (deps: TestDeps, subject: string) =>
  listApiKeys(deps, listApiKeysInput.parse({ subject, limit: 500 }));

describeOnEachDialect('imports of API keys', (dialect) => {
  it('importApiKeys() keeps everything that is told of a key, and its hash as that of the value', async () => {
    const deps = await openTestDeps(dialect);
    const id = `ak_${'f'.repeat(32)}`;
    const told = {
      id,
      subject: 'org_1',
      name: 'nightly export',
      description: 'runs at four',
      scopes: ['read', 'write'],
      claims: { plan: 'pro' },
      createdBy: 'user_7',
      createdAt: deps.clock.now - 1000 * HOUR,
      expiresAt: deps.clock.now + HOUR,
      enabled: false,
      start: 'acme_live_ab',
    };
    const report = await importing(deps, [
      { hash: sha256('acme_live_abcdef'), rateLimit: { count: 10, windowSeconds: 60 }, ...told },
    ]);
    expect(report).toEqual({
      imported: 1,
      existing: 0,
      refused: 0,
      results: [{ outcome: 'imported', id }],
    });
    expect(await getApiKey(deps, { id })).toMatchObject({ ...told, state: 'disabled', revokedAt: null });
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.apiKeys)).toMatchObject([
      { rate_limit: 10, rate_limit_window_seconds: 60, has_credits: false, prefix: 'ak_' },
    ]);
    const [secret] = await db
      .select()
      .from(tables.secrets)
      .then((rows) => rows.slice(-1));
    expect(secret).toMatchObject({ owner_id: id, hash: deps.keyring.hash('acme_live_abcdef') });
    expect(await findOwner(deps, 'acme_live_abcdef')).toEqual({ kind: 'api_key', id });
  });

  it('importApiKeys() takes a hash in hex of either case, in base64 and in its form for URLs', async () => {
    const deps = await openTestDeps(dialect);
    const values = ['a', 'b', 'c', 'd', 'e'];
    const forms = ['hex', 'HEX', 'base64', 'base64url', 'unpadded'].map((form, index) => {
      const digest = createHash('sha256')
        .update(values[index] ?? '')
        .digest();
      if (form === 'HEX') return digest.toString('hex').toUpperCase();
      if (form === 'unpadded') return digest.toString('base64').replace('=', '');
      return digest.toString(form as BufferEncoding);
    });
    const report = await importing(
      deps,
      forms.map((form, index) => ({ hash: form, subject: 'user_1', name: `key ${index}` })),
    );
    expect(report.imported).toBe(5);
    for (const [index, value] of values.entries())
      expect(await findOwner(deps, value)).toEqual({ kind: 'api_key', id: idOf(report.results[index]) });
  });

  it('importApiKeys() makes an id and takes now where nothing is told', async () => {
    const deps = await openTestDeps(dialect);
    const { results } = await importing(deps, [item('a')]);
    expect(await getApiKey(deps, { id: idOf(results[0]) })).toMatchObject({
      id: expect.stringMatching(/^ak_[0-9a-f]{32}$/),
      state: 'live',
      enabled: true,
      scopes: [],
      claims: null,
      start: '',
      expiresAt: null,
      createdAt: deps.clock.now,
    });
  });

  it('importApiKeys() is one event that counts, and names no key', async () => {
    const deps = await openTestDeps(dialect);
    await importing(deps, [item('a'), item('b'), { hash: 'short' }]);
    expect(await eventsOf(deps)).toEqual([{ type: 'api_keys.imported', data: { count: 2, shapes: 0 } }]);
    await expectChained(deps);
  });

  it('importApiKeys() again finds all there, changes nothing and appends no event', async () => {
    const deps = await openTestDeps(dialect);
    const items = [item('a'), item('b', { id: `ak_${'1'.repeat(32)}` })];
    const first = await importing(deps, items);
    const { db, tables } = deps.store.read;
    const rows = async () => [await db.select().from(tables.apiKeys), await db.select().from(tables.secrets)];
    const before = await rows();
    deps.clock.now += HOUR;
    const again = await importing(deps, [...items].reverse());
    expect(again).toMatchObject({ imported: 0, existing: 2, refused: 0 });
    expect(again.results.map(idOf)).toEqual(first.results.map(idOf).reverse());
    expect(await rows()).toEqual(before);
    expect(await eventsOf(deps)).toHaveLength(1);
  });

  it('importApiKeys() finds a key that was renamed, rotated or revoked since by its id', async () => {
    const deps = await openTestDeps(dialect);
    const id = `ak_${'1'.repeat(32)}`;
    await importing(deps, [item('a', { id })]);
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id }));
    expect(await importing(deps, [item('a', { id }), item('b', { id, name: 'other' })])).toMatchObject({
      results: [
        { outcome: 'exists', id },
        { outcome: 'exists', id },
      ],
    });
    expect((await getApiKey(deps, { id })).state).toBe('revoked');
  });

  it('importApiKeys() refuses each bad item with code, message and field, and none beside it', async () => {
    const deps = await openTestDeps(dialect);
    const nested = JSON.parse(`${'['.repeat(5_000)}${']'.repeat(5_000)}`);
    const bad: [unknown, string, string | null][] = [
      [null, 'invalid_input', null],
      ['text', 'invalid_input', null],
      [{}, 'invalid_input', 'hash'],
      [item('x', { hash: sha256('x').slice(1) }), 'invalid_input', 'hash'],
      [item('x', { hash: `${sha256('x')}00` }), 'invalid_input', 'hash'],
      [item('x', { hash: 'x'.repeat(44) }), 'invalid_input', 'hash'],
      [item('x', { value: 'the value' }), 'invalid_input', 'value'],
      [item('x', { id: 'key_1' }), 'invalid_input', 'id'],
      [item('x', { name: '' }), 'invalid_input', 'name'],
      [item('x', { subject: 'a\u0000b' }), 'invalid_input', 'subject'],
      [item('x', { claims: { iss: 'me' } }), 'reserved_claim', 'claims'],
      [item('x', { claims: nested }), 'invalid_input', 'claims'],
      [item('x', { nested }), 'invalid_input', 'nested'],
      [item('x', { scopes: ['a', 'a'] }), 'invalid_input', 'scopes'],
      [item('x', { createdAt: deps.clock.now + 1 }), 'invalid_input', 'createdAt'],
      [item('x', { start: 'x'.repeat(17) }), 'invalid_input', 'start'],
      [item('x', { rateLimit: { count: 0, windowSeconds: 1 } }), 'invalid_input', 'rateLimit.count'],
    ];
    const report = await importing(deps, [item('a'), ...bad.map(([given]) => given), item('b')]);
    expect(codes(report)).toEqual(['imported', ...bad.map(([, code, field]) => [code, field]), 'imported']);
    expect(report).toMatchObject({ imported: 2, refused: bad.length });
    expect(report.results[3]).toEqual({
      outcome: 'refused',
      code: 'invalid_input',
      message: "Cannot accept 'hash': wanted text, found nothing",
      field: 'hash',
    });
    expect(JSON.stringify(report)).not.toMatch(/the value/);
  });

  it('importApiKeys() refuses a name that a live key of the subject has, and takes it from an expired one', async () => {
    const deps = await openTestDeps(dialect);
    const create = (name: string, more: object = {}) =>
      createApiKey(deps, admin, createApiKeyInput.parse({ name, subject: 'user_1', ...more }));
    await create('taken');
    await create('expired', { ttlSeconds: 60 });
    deps.clock.now += 60_000;
    const report = await importing(deps, [
      item('a', { name: 'taken' }),
      item('b', { name: 'taken', subject: 'user_2' }),
      item('c', { name: 'expired' }),
      item('d', { name: 'taken', expiresAt: deps.clock.now }),
    ]);
    expect(codes(report)).toEqual([['name_taken', 'name'], 'imported', 'imported', 'imported']);
    expect(await getApiKey(deps, { id: idOf(report.results[3]) })).toMatchObject({ state: 'expired' });
    await expect(create('expired')).rejects.toMatchObject({ code: 'name_taken' });
  });

  it('importApiKeys() judges items that are alike in their order', async () => {
    const deps = await openTestDeps(dialect);
    const id = `ak_${'1'.repeat(32)}`;
    const report = await importing(deps, [
      item('a'),
      item('a'),
      item('a', { subject: 'user_2' }),
      item('b', { name: 'a' }),
      item('c', { id }),
      item('d', { id }),
      item('e', { id, subject: 'user_2' }),
      item('e', { name: 'a' }),
    ]);
    const [first, second] = report.results;
    expect(idOf(second)).toBe(idOf(first));
    expect(codes(report)).toEqual([
      'imported',
      'exists',
      ['already_exists', 'hash'],
      ['name_taken', 'name'],
      'imported',
      'exists',
      ['already_exists', 'id'],
      ['name_taken', 'name'],
    ]);
    expect((await keysOf(deps, 'user_1')).data).toHaveLength(2);
    expect(await eventsOf(deps)).toEqual([{ type: 'api_keys.imported', data: { count: 2, shapes: 0 } }]);
  });

  it('importApiKeys() refuses the value of somebody else, of a machine and of a secret key alike', async () => {
    const deps = await openTestDeps(dialect);
    const { secret = '' } = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'x', subject: 'user_2' }),
    );
    const machine = await newMachine(deps, 'machine');
    const items = [secret, machine.secret, deps.adminKey].map((value) => item(value, { name: 'n' }));
    const report = await importing(deps, items);
    expect(new Set(report.results.map((result) => JSON.stringify(result))).size).toBe(1);
    expect(codes(report)[0]).toEqual(['already_exists', 'hash']);
    expect(await findOwner(deps, secret)).toMatchObject({ kind: 'api_key' });
    expect(await findOwner(deps, machine.secret)).toMatchObject({ kind: 'machine' });
  });

  it('importApiKeys() registers shapes with the keys, once, and has them read again', async () => {
    const deps = await openTestDeps(dialect);
    let forgotten = 0;
    const watched: TestDeps = { ...deps, shapes: { ...deps.shapes, forget: () => forgotten++ } };
    const shapes = [{ prefix: 'acme_', length: 40 }, { length: 32 }, { prefix: 'x-' }];
    await importing(watched, [item('a')], { shapes });
    await importing(watched, [item('a')], { shapes });
    expect(forgotten).toBe(2);
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.importedShapes);
    expect(rows.map(({ owner_kind, prefix, length }) => [owner_kind, prefix, length]).sort()).toEqual([
      ['api_key', '', 32],
      ['api_key', 'acme_', 40],
      ['api_key', 'x-', 0],
    ]);
    await importing(watched, [item('a')], { shapes: [{ prefix: 'other_' }] });
    expect(await eventsOf(deps)).toEqual([
      { type: 'api_keys.imported', data: { count: 1, shapes: 3 } },
      { type: 'api_keys.imported', data: { count: 0, shapes: 1 } },
    ]);
  });

  it.each([
    { items: [] },
    { items: Array.from({ length: 1001 }, () => ({})) },
    { items: [{}], shapes: [{}] },
    { items: [{}], shapes: [{ prefix: '' }] },
    { items: [{}], shapes: [{ length: 15 }] },
    { items: [{}], shapes: [{ prefix: 'a b' }] },
    { items: [{}], shapes: Array.from({ length: 21 }, (_, index) => ({ length: 16 + index })) },
  ])('importApiKeys() refuses as a whole what is no list of items, or of shapes', (input) => {
    expect(importApiKeysInput.safeParse(input).success).toBe(false);
  });

  it('importApiKeys() with an idempotency key answers what it did, even of what is gone since', async () => {
    const deps = await openTestDeps(dialect);
    const more = { idempotencyKey: 'batch-1' };
    const first = await importing(deps, [item('a'), {}], more);
    const again = await importing(deps, [item('a'), {}], more);
    expect(again).toEqual(first);
    expect(outcomes(again)).toEqual(['imported', 'refused']);
    await expect(importing(deps, [item('b'), {}], more)).rejects.toMatchObject({
      code: 'idempotency_conflict',
    });
    expect(await eventsOf(deps)).toHaveLength(1);
  });

  it('importApiKeys() takes 1,000 at once, and several of the same at the same time make each key once', async () => {
    const deps = await openTestDeps(dialect);
    const run = randomBytes(4).toString('hex');
    const items = Array.from({ length: 1000 }, (_, index) =>
      item(`${run} ${index}`, { subject: `user_${index % 7}` }),
    );
    const reports = await Promise.all([
      importing(deps, items),
      importing(deps, [...items].reverse()),
      importing(deps, items),
    ]);
    expect(reports.map(({ imported }) => imported).reduce((a, b) => a + b)).toBe(1000);
    for (const { refused, results } of reports) {
      expect(refused).toBe(0);
      expect(new Set(results.map(idOf)).size).toBe(1000);
    }
    const { db, tables } = deps.store.read;
    expect(await db.select({ id: tables.apiKeys.id }).from(tables.apiKeys)).toHaveLength(1000);
    expect(
      (await db.select().from(tables.secrets)).filter(({ owner_kind }) => owner_kind === 'api_key'),
    ).toHaveLength(1000);
    await expectChained(deps);
  });

  it('importApiKeys() of one id with two hashes at once leaves one key with its own secret', async () => {
    const deps = await openTestDeps(dialect);
    const id = `ak_${'1'.repeat(32)}`;
    const reports = await Promise.all(
      ['a', 'b', 'c'].map((value) => importing(deps, [item(value, { id, name: value })])),
    );
    expect(reports.flatMap(outcomes).sort()).toEqual(['exists', 'exists', 'imported']);
    const winner = ['a', 'b', 'c'][reports.findIndex(({ imported }) => imported === 1)] ?? '';
    const { db, tables } = deps.store.read;
    const secrets = (await db.select().from(tables.secrets)).filter(({ owner_id }) => owner_id === id);
    expect(secrets.map(({ hash }) => hash)).toEqual([deps.keyring.hash(winner)]);
    expect(await getApiKey(deps, { id })).toMatchObject({ name: winner });
  });

  // SQLite has one writer: there nobody meets an import that has written and is not there yet.
  if (dialect === 'postgres') {
    it('a key that is being imported while all of its subject’s are revoked is revoked too', async () => {
      const deps = await openTestDeps(dialect);
      await importing(deps, [item('first')]);
      const held = holding(deps);
      const running = importing(held.deps, [item('second')]);
      await held.written;
      const input = revokeAllApiKeysInput.parse({ subject: 'user_1', reason: 'owner_left' });
      const revoking = revokeAllApiKeys(deps, admin, input);
      await somebodyWaits(deps);
      held.commit();
      const [{ results }, { revoked }] = await Promise.all([running, revoking]);
      expect(revoked).toBe(2);
      expect((await getApiKey(deps, { id: idOf(results[0]) })).state).toBe('revoked');
    });

    it('a key that another import is making is judged again when that is done, and leaves nothing behind', async () => {
      const deps = await openTestDeps(dialect);
      const id = `ak_${'1'.repeat(32)}`;
      const held = holding(deps);
      const first = importing(held.deps, [
        item('a', { id }),
        item('b', { name: 'named' }),
        item('c'),
        item('d'),
      ]);
      await held.written;
      const second = importing(deps, [
        item('x', { id }),
        item('y', { name: 'named' }),
        item('c', { subject: 'user_2' }),
        item('d'),
        item('z'),
      ]);
      await somebodyWaits(deps);
      held.commit();
      expect(outcomes(await first)).toEqual(['imported', 'imported', 'imported', 'imported']);
      expect(codes(await second)).toEqual([
        'exists',
        ['name_taken', 'name'],
        ['already_exists', 'hash'],
        'exists',
        'imported',
      ]);
      const { db, tables } = deps.store.read;
      const secrets = (await db.select().from(tables.secrets)).filter((row) => row.owner_kind === 'api_key');
      const hashes = secrets.map(({ hash }) => hash.toString('hex')).sort();
      const values = ['a', 'b', 'c', 'd', 'z'];
      expect(hashes).toEqual(values.map((value) => deps.keyring.hash(value).toString('hex')).sort());
      expect(await db.select().from(tables.apiKeys)).toHaveLength(5);
    });
  }

  it('whatever is imported in whatever order, hashes, ids and live names stay one key’s', async () => {
    const deps = await openTestDeps(dialect);
    let run = 0;
    const some = fc.record({
      value: fc.constantFrom('a', 'b', 'c'),
      subject: fc.constantFrom('x', 'y'),
      name: fc.constantFrom('m', 'n'),
      id: fc.constantFrom(undefined, '1', '2'),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(some, { minLength: 1, maxLength: 6 }), { maxLength: 3 }),
        async (calls) => {
          run++;
          const prefix = `ak_${run.toString(16).padStart(31, '0')}`;
          const batches = calls.map((batch) =>
            batch.map(({ value, subject, name, id }) => ({
              hash: sha256(`${run} ${value}`),
              subject: `${run} ${subject}`,
              name,
              ...(id !== undefined && { id: prefix + id }),
            })),
          );
          const reports = await Promise.all(batches.map((batch) => importing(deps, batch)));
          const imported = reports.reduce((sum, report) => sum + report.imported, 0);
          const rows = [...(await keysOf(deps, `${run} x`)).data, ...(await keysOf(deps, `${run} y`)).data];
          expect(rows).toHaveLength(imported);
          expect(new Set(rows.map(({ subject, name }) => `${subject} ${name}`)).size).toBe(imported);
          for (const [call, report] of reports.entries()) {
            for (const [index, result] of report.results.entries()) {
              const given = batches[call]?.[index];
              if (result.outcome === 'refused') {
                expect(['name_taken', 'already_exists']).toContain(result.code);
                continue;
              }
              const key = rows.find(({ id }) => id === result.id);
              expect(key?.subject).toBe(given?.subject);
              if (result.outcome === 'imported') expect(key).toMatchObject({ name: given?.name });
            }
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  it('a value of our own format can be imported by its hash', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = newValue('ak_');
    const { results } = await importing(deps, [item(value, { name: 'moved' })]);
    expect(await findOwner(deps, value)).toEqual({ kind: 'api_key', id: idOf(results[0]) });
  });
});

/** The same deps, whose transactions wait before they commit. */
function holding(deps: TestDeps) {
  let commit = () => {};
  let isWritten = () => {};
  const mayCommit = new Promise<void>((resolve) => {
    commit = resolve;
  });
  const written = new Promise<void>((resolve) => {
    isWritten = resolve;
  });
  const tx: Store['tx'] = (work, lane) =>
    deps.store.tx(async (rows) => {
      const done = await work(rows);
      isWritten();
      await mayCommit;
      return done;
    }, lane);
  return { deps: { ...deps, store: { ...deps.store, tx } }, written, commit };
}

/** Until a transaction of this database waits for another's lock. */
async function somebodyWaits({ store }: TestDeps) {
  const query = sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
  for (;;) {
    const { rows } = (await store.read.db.execute(query)) as unknown as { rows: unknown[] };
    if (rows.length > 0) return;
    await sleep(10);
  }
}
