/** What an access token may do, in words that people are shown where they consent. */
import { asc, count, eq, getTableColumns, inArray, placeholder } from 'drizzle-orm';
import { z } from 'zod';
import { lockName, lockStatement } from '../../db/lock.ts';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { description, resourceUrl, scope } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, type Page, pageInput, toPage } from './pages.ts';

export interface OauthScope {
  name: string;
  /** What people are told that it lets an application do. */
  description: string;
  /** Whether the metadata of the server names it. */
  advertised: boolean;
  /** The resource it belongs to (RFC 8707); null for any. */
  resource: string | null;
  /** One of OpenID Connect's, which is always there. */
  builtIn: boolean;
  createdAt: number | null;
  updatedAt: number | null;
}

type ScopeRow = Rows['tables']['oauthScopes']['$inferSelect'];

const OAUTH_SCOPES_MAX = 1_000;

/** OpenID Connect Core 1.0, sections 5.4 and 11. */
const BUILT_IN: ReadonlyMap<string, string> = new Map([
  ['openid', 'Know who you are'],
  ['profile', 'See your name and picture'],
  ['email', 'See your e-mail address'],
  ['offline_access', 'Stay connected while you are away'],
]);

export const BUILT_IN_SCOPES: readonly string[] = [...BUILT_IN.keys()];

const ofBuiltIn = (name: string, text: string): OauthScope => ({
  name,
  description: text,
  advertised: true,
  resource: null,
  builtIn: true,
  createdAt: null,
  updatedAt: null,
});

/** A scope that somebody defines: on the wire one that looks like a machine's id is an audience. */
const customScope = scope.refine(
  (name) => !name.startsWith('mch_'),
  "wanted a name that does not begin 'mch_'",
);

export const createOauthScopeInput = z.strictObject({
  name: customScope.meta({ positional: true }),
  description: description.min(1),
  advertised: z.boolean().default(true),
  resource: resourceUrl.nullish(),
  ...idempotencyInput,
});

/** Throws `name_taken`, also for a built-in one, and `limit_reached`. */
export async function createOauthScope(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createOauthScopeInput>,
): Promise<OauthScope> {
  const now = deps.now();
  const row: ScopeRow = {
    name: input.name,
    description: input.description,
    advertised: input.advertised,
    resource: input.resource ?? null,
    created_at: now,
    updated_at: now,
  };
  return create(deps, caller, { procedure: 'oauthScopes.create', input }, async (tx) => {
    if (BUILT_IN.has(row.name)) throw nameTaken(row.name);
    await assertRoom(deps, tx);
    const { oauthScopes } = tx.tables;
    const inserted = await tx.db.insert(oauthScopes).values(row).onConflictDoNothing().returning();
    if (inserted.length === 0) throw nameTaken(row.name);
    return {
      result: toOauthScope(row),
      event: { type: 'oauth_scope.created', objectId: row.name, data: { resource: row.resource } },
    };
  });
}

async function assertRoom(deps: Deps, tx: Rows) {
  await lockName(deps.store, tx, 'oauth_scopes');
  const [row] = await tx.db.select({ count: count() }).from(tx.tables.oauthScopes);
  if ((row?.count ?? 0) < OAUTH_SCOPES_MAX) return;
  throw new CountersignError('limit_reached', `Cannot create scope: there may be ${OAUTH_SCOPES_MAX}`);
}

export const listOauthScopesInput = z.strictObject(pageInput);

/** By name; the built-in ones first, on the first page, beyond its limit. */
export async function listOauthScopes(
  { store: { read } }: Deps,
  { cursor, limit, offset }: z.output<typeof listOauthScopesInput>,
): Promise<Page<OauthScope>> {
  const { oauthScopes: s } = read.tables;
  const rows = await read.db
    .select()
    .from(s)
    .where(afterCursor(cursor, s.name, s.name, false))
    .orderBy(asc(s.name))
    .limit(limit + 1)
    .offset(offset);
  const page = toPage(rows, limit, ({ name }) => [name, name], toOauthScope);
  const isFirst = cursor === undefined && offset === 0;
  const builtIn = isFirst ? [...BUILT_IN].map(([name, text]) => ofBuiltIn(name, text)) : [];
  return { ...page, data: [...builtIn, ...page.data] };
}

export const updateOauthScopeInput = z.strictObject({
  name: customScope.meta({ positional: true }),
  description: description.min(1).optional(),
  advertised: z.boolean().optional(),
  resource: resourceUrl.nullish(),
});

const UPDATABLE = ['description', 'advertised', 'resource'] as const;

/** Changes what it is told to; what already is so leaves no event. Throws `not_found`, also for a built-in one. */
export async function updateOauthScope(
  deps: Deps,
  caller: Caller,
  { name, ...changes }: z.output<typeof updateOauthScopeInput>,
): Promise<OauthScope> {
  return change(deps, caller, async (tx) => {
    const before = await lockScope(tx, name);
    const row: ScopeRow = {
      ...before,
      description: changes.description ?? before.description,
      advertised: changes.advertised ?? before.advertised,
      resource: changes.resource === undefined ? before.resource : changes.resource,
      updated_at: deps.now(),
    };
    const changed = UPDATABLE.filter((field) => row[field] !== before[field]);
    if (changed.length === 0) return { result: toOauthScope(before), event: null };
    const { oauthScopes: s } = tx.tables;
    await tx.db.update(s).set(row).where(eq(s.name, name));
    return {
      result: toOauthScope(row),
      event: { type: 'oauth_scope.updated' as const, objectId: name, data: { changed } },
    };
  });
}

export const oauthScopeNameInput = z.strictObject({ name: customScope.meta({ positional: true }) });

/** Nobody can be given it any more; tokens that have it keep it until they expire. */
export async function deleteOauthScope(
  deps: Deps,
  caller: Caller,
  { name }: z.output<typeof oauthScopeNameInput>,
): Promise<{ name: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    await lockScope(tx, name);
    const { oauthScopes: s } = tx.tables;
    await tx.db.delete(s).where(eq(s.name, name));
    return {
      result: { name, deleted: true as const },
      event: { type: 'oauth_scope.deleted', objectId: name },
    };
  });
}

/** Reads a scope that this transaction is about to change; others that want to, wait. */
async function lockScope(tx: Rows, name: string): Promise<ScopeRow> {
  const row = await readLocked(tx, name);
  if (!row) throw new CountersignError('not_found', `No scope is called '${name}'`);
  return row;
}

const readLocked = lockStatement('oauth_scope_lock', 'oauthScopes', 'name');

/** Those of some scopes that there are, in the order given, in words. */
export async function describeScopes(rows: Rows, names: readonly string[]): Promise<OauthScope[]> {
  const custom = names.filter((name) => !BUILT_IN.has(name));
  const found = custom.length === 0 ? [] : await readScopes(rows, custom);
  const known = new Map(found.map((row) => [row.name, toOauthScope(row)]));
  return names.flatMap((name) => {
    const text = BUILT_IN.get(name);
    return text === undefined ? (known.get(name) ?? []) : ofBuiltIn(name, text);
  });
}

/** Every token that is issued asks for its scopes, so that a statement is prepared for so many: a power of two, that they be few. */
async function readScopes(rows: Rows, names: readonly string[]): Promise<ScopeRow[]> {
  const size = 2 ** Math.ceil(Math.log2(names.length));
  let read = readersBySize.get(size);
  if (!read) {
    read = readerOf(size);
    readersBySize.set(size, read);
  }
  const parameters: Record<string, unknown> = {};
  for (let i = 0; i < size; i++) parameters[placeOf(i)] = names[i] ?? names[0];
  return read(rows, parameters);
}

const readersBySize = new Map<number, ReturnType<typeof readerOf>>();

const placeOf = (i: number) => `name_${i}`;

const readerOf = (size: number) =>
  flatStatement<Record<string, unknown>, ScopeRow>(`oauth_scopes_${size}`, (db, { oauthScopes: s }) => {
    const fields = getTableColumns(s);
    const query = db
      .select(fields)
      .from(s)
      .where(
        inArray(
          s.name,
          Array.from({ length: size }, (_, i) => placeholder(placeOf(i))),
        ),
      );
    return { fields, query };
  });

/** Throws `invalid_input` where one of them is none. */
export async function assertScopesKnown(rows: Rows, names: readonly string[], field: string): Promise<void> {
  const known = new Set((await describeScopes(rows, names)).map(({ name }) => name));
  const unknown = names.find((name) => !known.has(name));
  if (unknown === undefined) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot save: '${field}' must name scopes that there are, got '${unknown}'`,
    {
      field,
    },
  );
}

/** What the metadata of the server names. */
export async function advertisedScopes({ store: { read } }: Pick<Deps, 'store'>): Promise<string[]> {
  const { oauthScopes: s } = read.tables;
  const rows = await read.db
    .select({ name: s.name })
    .from(s)
    .where(eq(s.advertised, true))
    .orderBy(asc(s.name));
  return [...BUILT_IN_SCOPES, ...rows.map(({ name }) => name)];
}

const nameTaken = (name: string) =>
  new CountersignError('name_taken', `Another scope is called '${name}'`, { field: 'name' });

const toOauthScope = (row: ScopeRow): OauthScope => ({
  name: row.name,
  description: row.description,
  advertised: row.advertised,
  resource: row.resource,
  builtIn: false,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});
