import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { listApiKeys, listApiKeysInput } from '../../../server/domain/api-keys.ts';
import { listDeliveries, listDeliveriesInput } from '../../../server/domain/deliveries.ts';
import { listEvents, listEventsInput } from '../../../server/domain/events.ts';
import { listKeyPolicies, listKeyPoliciesInput } from '../../../server/domain/key-policies.ts';
import { listKeyPrefixes, listKeyPrefixesInput } from '../../../server/domain/key-shapes.ts';
import { listM2mTokens, listM2mTokensInput } from '../../../server/domain/m2m-tokens.ts';
import { listMachineScopes, listMachineScopesInput } from '../../../server/domain/machine-scopes.ts';
import { listMachines, listMachinesInput } from '../../../server/domain/machines.ts';
import {
  afterCursor,
  containsText,
  encodeCursor,
  OFFSET_MAX,
  orderOf,
  PAGE_SIZE_MAX,
  pageInput,
  toPage,
} from '../../../server/domain/pages.ts';
import { listSecretKeys, listSecretKeysInput } from '../../../server/domain/secret-keys.ts';
import { listSubjects, listSubjectsInput } from '../../../server/domain/subjects.ts';
import { listWebhookEndpoints, listWebhookEndpointsInput } from '../../../server/domain/webhook-endpoints.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const page = z.strictObject(pageInput);

describe('pageInput', () => {
  it('has bounds and defaults', () => {
    expect(page.parse({})).toEqual({ limit: 50, offset: 0 });
    const refused = [
      { limit: 0 },
      { limit: PAGE_SIZE_MAX + 1 },
      { limit: 1.5 },
      { offset: -1 },
      { offset: OFFSET_MAX + 1 },
      { cursor: 'x'.repeat(1025) },
      { cursor: 1 },
      { page: 2 },
    ];
    for (const input of refused) expect(page.safeParse(input).success).toBe(false);
  });
});

describe('toPage()', () => {
  const cut = (rows: number[], limit: number) =>
    toPage(
      rows,
      limit,
      (row) => [row, `${row}`],
      (row) => row * 10,
    );

  it('has a next page exactly when one row more than the limit was read', () => {
    expect(cut([1, 2, 3], 2)).toEqual({ data: [10, 20], nextCursor: encodeCursor([2, '2']) });
    expect(cut([1, 2], 2)).toEqual({ data: [10, 20], nextCursor: null });
    expect(cut([], 2)).toEqual({ data: [], nextCursor: null });
  });
});

describeOnEachDialect('afterCursor()', (dialect) => {
  async function withMachines(names: string[]) {
    const deps = await openTestDeps(dialect);
    for (const name of names) await newMachine(deps, name);
    return { deps, ...deps.store.read };
  }

  it('goes on between rows with the same sort value, by id, in both directions', async () => {
    const { db, tables } = await withMachines(['a', 'b', 'c', 'd', 'e']);
    const { created_at, id } = tables.machines;
    for (const descending of [false, true]) {
      const read = (cursor: string | undefined) =>
        db
          .select()
          .from(tables.machines)
          .where(afterCursor(cursor, created_at, id, descending))
          .orderBy(...orderOf(created_at, id, descending))
          .limit(2);
      const walked: string[] = [];
      for (let rows = await read(undefined); rows.length > 0; ) {
        walked.push(...rows.map((row) => row.id));
        const last = rows.at(-1);
        rows = last ? await read(encodeCursor([last.created_at, last.id])) : [];
      }
      expect(walked).toEqual([...new Set(walked)]);
      expect(walked).toHaveLength(5);
      expect(walked).toEqual([...walked].sort((a, b) => (a < b !== descending ? -1 : 1)));
    }
  });

  it('refuses what is no cursor, one of another list, and what a database could not hold', async () => {
    const { deps } = await withMachines([]);
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const cursors = [
      '',
      'x',
      '%%%',
      encode(null),
      encode({}),
      encode([]),
      encode([1]),
      encode([1, 2]),
      encode(['name', 'mch_1']),
      encode([1.5, 'mch_1']),
      encode([1, 'mch_\0']),
      Buffer.from('[1e400,"mch_1"]').toString('base64url'),
      encode([1, 'mch_1', 'more']),
    ];
    for (const cursor of cursors)
      await expect(
        listMachines(deps, listMachinesInput.parse({ cursor })),
        `cursor '${cursor}'`,
      ).rejects.toMatchObject({ code: 'invalid_input', field: 'cursor' });
    await expect(
      listMachines(deps, listMachinesInput.parse({ orderBy: 'name', cursor: encode(['a\0', 'mch_1']) })),
    ).rejects.toMatchObject({ code: 'invalid_input', field: 'cursor' });
    expect(await listMachines(deps, listMachinesInput.parse({ cursor: encode([1, '\'"; --']) }))).toEqual({
      data: [],
      nextCursor: null,
    });
  });

  it('containsText() folds ASCII letters alone and takes wild cards literally', async () => {
    const { db, tables } = await withMachines(['Ärger 100%', 'a_b', 'a\\b']);
    const find = async (text: string) =>
      (await db.select().from(tables.machines).where(containsText(tables.machines.name, text))).map(
        (row) => row.name,
      );
    expect(await find('ÄRGER')).toEqual(['Ärger 100%']);
    expect(await find('ärger')).toEqual([]);
    expect(await find('0%')).toEqual(['Ärger 100%']);
    expect(await find('a_')).toEqual(['a_b']);
    expect(await find('A\\B')).toEqual(['a\\b']);
    expect(await find("'")).toEqual([]);
    expect(await find('')).toHaveLength(3);
    expect(await db.select().from(tables.machines).where(eq(tables.machines.name, 'a_b'))).toHaveLength(1);
  });
});

describe('lists on SQLite', () => {
  const cursor = encodeCursor([1, 'x']);
  const byText = encodeCursor(['x', 'x']);
  const subject = 'user_1';
  type List = (deps: TestDeps, machineId: string) => Promise<unknown>;
  const apiKeys =
    (input: object): List =>
    (deps) =>
      listApiKeys(deps, listApiKeysInput.parse(input));
  const machines =
    (input: object): List =>
    (deps) =>
      listMachines(deps, listMachinesInput.parse(input));
  const edges =
    (inputOf: (machineId: string) => object): List =>
    (deps, machineId) =>
      listMachineScopes(deps, listMachineScopesInput.parse({ ...inputOf(machineId), cursor: byText }));

  const LISTS: [string, List][] = [
    ['machines', machines({ cursor })],
    ['machines, the oldest first', machines({ direction: 'ascending', cursor })],
    ['machines by name', machines({ orderBy: 'name', cursor: byText })],
    ['machines searched', machines({ query: 'x', cursor })],
    ['machine scopes', edges(() => ({}))],
    ['machine scopes from', edges((fromMachineId) => ({ fromMachineId }))],
    ['machine scopes to', edges((toMachineId) => ({ toMachineId }))],
    ['API keys', apiKeys({ cursor })],
    ['API keys in a state', apiKeys({ state: 'revoked', cursor })],
    ['API keys searched', apiKeys({ query: 'x', direction: 'ascending', cursor })],
    ['API keys of a subject', apiKeys({ subject, state: 'live', cursor })],
    ['API keys by name', apiKeys({ name: 'x', state: 'live', cursor })],
    ['API keys of a subject by name', apiKeys({ subject, name: 'x', cursor })],
    ['API keys by start', apiKeys({ start: 'ak_abc', subject, name: 'x', state: 'live', cursor })],
    ['key prefixes', (deps) => listKeyPrefixes(deps, listKeyPrefixesInput.parse({ cursor: byText }))],
    ['key policies', (deps) => listKeyPolicies(deps, listKeyPoliciesInput.parse({ cursor }))],
    ['subjects', (deps) => listSubjects(deps, listSubjectsInput.parse({ cursor }))],
    ['secret keys', (deps) => listSecretKeys(deps, listSecretKeysInput.parse({ cursor }))],
    [
      'M2M tokens',
      (deps, machineId) =>
        listM2mTokens(deps, callerWith('admin'), listM2mTokensInput.parse({ machineId, cursor })),
    ],
    ['webhook endpoints', (deps) => listWebhookEndpoints(deps, listWebhookEndpointsInput.parse({ cursor }))],
    ['deliveries', (deps) => listDeliveries(deps, listDeliveriesInput.parse({ state: 'dead', cursor }))],
    ['events', (deps) => listEvents(deps, listEventsInput.parse({ after: 1 }))],
  ];

  /** Steps whose cost is bounded: one row by its id, rows beyond a cursor, what a LIMIT ends, what a limit of ours keeps few. */
  const BOUNDED = [
    /^SEARCH \w+ USING .*\((id|kid|hash)=\?\)$/,
    /^SEARCH \w+ USING .*[<>](\?|\(\?,\?\))\)/,
    /^SEARCH secrets USING .*\(owner_kind=\? AND owner_id=\?\)$/,
    /^SEARCH machine_scopes USING .*\(from_machine_id=\?\)$/,
    // The newest of all machines, up to a LIMIT: a search begins there whatever the cursor.
    /^SCAN machines USING INDEX machines_created_at$/,
    /^SCAN candidates$/,
  ];

  it.each(LISTS)('%s are read along an index, and no table is walked whole', async (_, list) => {
    const deps = await openTestDeps('sqlite');
    const { id } = await newMachine(deps, 'billing');
    const statements = await statementsOf(deps, () => list(deps, id));
    expect(statements.length).toBeGreaterThan(0);
    for (const statement of statements) {
      const steps = planOf(deps, statement).filter((step) => /^(SCAN|SEARCH) /.test(step));
      const unbounded = steps.filter((step) => !BOUNDED.some((pattern) => pattern.test(step)));
      expect([statement, unbounded]).toEqual([statement, []]);
      expect(statement).toMatch(/ limit \?| = \?$| in \(/);
    }
  });
});
