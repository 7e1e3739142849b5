/** Imports of API keys from elsewhere, by the SHA-256 of their values: the values themselves are never sent. */
import { and, eq, inArray, lte, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import { shareName } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { hexId, sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError, type ErrorCode } from '../errors.ts';
import { API_KEY_IMPORTS, nameTaken } from './api-keys.ts';
import { apiKeyId, claims, description, instant, name, scopes, subject } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { describeInvalid } from './invalid-input.ts';
import { type ImportedShape, registerImportedShapes } from './key-shapes.ts';
import { rateLimit } from './rate-limits.ts';
import { hasExpired, type SecretRow } from './secrets.ts';

type ApiKeyRow = Rows['tables']['apiKeys']['$inferSelect'];

export const IMPORT_ITEMS_MAX = 1000;
const SHAPES_MAX = 20;
/** What people recognise a value by; more of it might be all of it. */
export const START_LENGTH_MAX = 16;

const HEX = /^[0-9A-Fa-f]{64}$/;
const BASE64 = /^[A-Za-z0-9+/_-]{43}=?$/;

/** 32 bytes, answered as hex digits in lower case. */
export const sha256 = z.string().transform((text, context) => {
  if (HEX.test(text)) return text.toLowerCase();
  if (BASE64.test(text)) return Buffer.from(text, 'base64').toString('hex');
  context.addIssue('wanted the SHA-256 of a value, as 64 hex digits or in base64');
  return z.NEVER;
});

/** One key of an import. */
export const importedApiKey = z.strictObject({
  /** SHA-256 of the value. */
  hash: sha256,
  subject,
  name,
  /** Kept; without it, one is made. */
  id: apiKeyId.optional(),
  description: description.nullish(),
  scopes: scopes.default([]),
  claims: claims.nullish(),
  createdAt: instant.optional(),
  createdBy: subject.nullish(),
  /** One that is past is kept too. */
  expiresAt: instant.nullish(),
  enabled: z.boolean().default(true),
  /** How the value begins, for people to recognise it by. */
  start: z
    .string()
    .max(START_LENGTH_MAX)
    .regex(/^[\x21-\x7e]*$/, 'wanted printable ASCII without spaces')
    .nullish(),
  rateLimit: rateLimit.nullish(),
});

type ImportedApiKey = z.output<typeof importedApiKey>;

/** How values of another format than ours look: they are looked up only if they fit one that was registered. */
const shape = z
  .strictObject({
    /** How they begin. */
    prefix: z
      .string()
      .min(1)
      .max(64)
      .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces')
      .optional(),
    /** How many characters they have. */
    length: z.number().int().min(16).max(512).optional(),
  })
  .refine(
    ({ prefix, length }) => prefix !== undefined || length !== undefined,
    "wanted 'prefix' or 'length'",
  );

export const importApiKeysInput = z.strictObject({
  /** Each is judged by itself, so that a bad one refuses no other. */
  items: z.array(z.custom<z.input<typeof importedApiKey>>()).min(1).max(IMPORT_ITEMS_MAX),
  /** Registered together with the keys. */
  shapes: z.array(shape).max(SHAPES_MAX).default([]),
  ...idempotencyInput,
});

/** What became of one item. `exists` says that its hash or id is there already, of the same subject. */
export type ImportOutcome = { outcome: 'imported' | 'exists'; id: string } | ImportRefusal;

export interface ImportRefusal {
  outcome: 'refused';
  code: ErrorCode;
  message: string;
  /** The field at fault. */
  field: string | null;
}

export interface ImportReport {
  imported: number;
  existing: number;
  refused: number;
  /** In the order of the items. */
  results: ImportOutcome[];
}

/**
 * Imports up to 1,000 keys in one transaction, as one event. What is there already is left as it is, so that the same
 * import again changes nothing; but a key that was deleted meanwhile, or purged after its retention, is imported anew,
 * also where it had been revoked: take what was compromised out of the file. Items are refused one by one: with `invalid_input`, `reserved_claim`, `name_taken`, or
 * `already_exists` where the hash or id is somebody else's.
 */
export async function importApiKeys(
  deps: Deps,
  caller: Caller,
  { items: given, ...input }: z.output<typeof importApiKeysInput>,
): Promise<ImportReport> {
  const read = given.map(readImportItem);
  const items = read.map((item, index) => ({ index, ...refuseLater(deps, item) }));
  // As they were read, and not as they are judged: what is too late now may not be when the same call comes again.
  const creation = { procedure: 'apiKeys.import', input: { ...input, items: read } } as const;
  const report = await create(deps, caller, creation, async (tx) => {
    const now = deps.now();
    await shareName(deps.store, tx, API_KEY_IMPORTS);
    const shapes = await registerImportedShapes(tx, shapesOf(input), now);
    const result = reportOf(await importItems(tx, deps, items, now));
    const { imported: count } = result;
    if (count === 0 && shapes === 0) return { result, event: null };
    return { result, event: { type: 'api_keys.imported', objectId: 'api_keys', data: { count, shapes } } };
  });
  if (input.shapes.length > 0) deps.shapes.forget();
  return report;
}

function reportOf(results: ImportOutcome[]): ImportReport {
  const count = (wanted: ImportOutcome['outcome']) =>
    results.filter(({ outcome }) => outcome === wanted).length;
  return { imported: count('imported'), existing: count('exists'), refused: count('refused'), results };
}

/** An item on its way: a key to be, or why it will not be one. */
type Judged = { key: ImportedApiKey } | { refusal: ImportRefusal };
type Item = { index: number } & Judged;

/** What an item says by itself, whatever is there. */
export function readImportItem(given: unknown): Judged {
  try {
    const parsed = importedApiKey.safeParse(given);
    if (parsed.success) return { key: parsed.data };
    const { message, field } = describeInvalid(parsed.error, given);
    return { refusal: refused(new CountersignError('invalid_input', message, { field })) };
  } catch (error) {
    if (error instanceof CountersignError) return { refusal: refused(error) };
    throw error;
  }
}

/** A key cannot have been created later than now. */
function refuseLater({ now }: Pick<Deps, 'now'>, item: Judged): Judged {
  if ('refusal' in item || (item.key.createdAt ?? 0) <= now()) return item;
  const message = `Cannot import API key: 'createdAt' must be at most ${now()}, got ${item.key.createdAt}`;
  return { refusal: refused(new CountersignError('invalid_input', message, { field: 'createdAt' })) };
}

const refused = ({ code, message, field }: CountersignError): ImportRefusal => ({
  outcome: 'refused',
  code,
  message,
  field: field ?? null,
});

const shapesOf = ({ shapes }: Pick<z.output<typeof importApiKeysInput>, 'shapes'>): ImportedShape[] =>
  shapes.map(({ prefix = '', length = 0 }) => ({ ownerKind: 'api_key', prefix, length }));

/** A key that is to be written, with its place among the items. */
interface Candidate {
  index: number;
  key: ImportedApiKey;
  /** As `secrets.hash` has it. */
  hash: Buffer;
}

/** More than one round for keys of one import that are alike, or that another import makes at the same time. */
const ROUNDS_MAX = 10;
/** Keys in one statement. */
const CHUNK = 250;

async function importItems(
  tx: Rows,
  deps: Deps,
  items: readonly Item[],
  now: number,
): Promise<ImportOutcome[]> {
  const outcomes = items.map((item): ImportOutcome => ('refusal' in item ? item.refusal : NOT_NOW));
  let waiting = items.flatMap((item) =>
    'key' in item ? [{ ...item, hash: deps.keyring.hashOf(Buffer.from(item.key.hash, 'hex')) }] : [],
  );
  for (let round = 1; waiting.length > 0 && round <= ROUNDS_MAX; round++) {
    const next: Candidate[] = [];
    for (let i = 0; i < waiting.length; i += CHUNK) {
      const chunk = waiting.slice(i, i + CHUNK);
      next.push(
        ...(await importChunk(tx, deps, chunk, now, (index, outcome) => (outcomes[index] = outcome))),
      );
    }
    waiting = next;
  }
  return outcomes;
}

const NOT_NOW = refused(
  new CountersignError('already_exists', 'Another caller imports the same at the same time'),
);

/** Decides what it can of a chunk, and answers those that have to be judged again, now that others are there. */
async function importChunk(
  tx: Rows,
  deps: Deps,
  chunk: readonly Candidate[],
  now: number,
  decide: (index: number, outcome: ImportOutcome) => void,
): Promise<Candidate[]> {
  const known = await readKnown(tx, chunk, now);
  const taking = new Set<string>();
  const fresh: { candidate: Candidate; row: ApiKeyRow }[] = [];
  const again: Candidate[] = [];
  for (const candidate of chunk) {
    const outcome = judge(candidate, known, now);
    const wanted = claimsOf(candidate, now);
    if (outcome) decide(candidate.index, outcome);
    else if (wanted.some((thing) => taking.has(thing))) again.push(candidate);
    else {
      for (const thing of wanted) taking.add(thing);
      fresh.push({ candidate, row: toRow(candidate, now) });
    }
  }
  const written = await write(tx, deps, fresh);
  for (const { candidate, row } of fresh) {
    if (written.has(row.id)) decide(candidate.index, { outcome: 'imported', id: row.id });
    else again.push(candidate);
  }
  return again;
}

/** What nobody else may have: its hash, its id, and while it lives its name among its subject's keys. */
function claimsOf({ key }: Candidate, now: number): string[] {
  const { hash, id, subject, name, expiresAt = null } = key;
  return [
    `hash ${hash}`,
    ...(id === undefined ? [] : [`id ${id}`]),
    ...(hasExpired(expiresAt, now) ? [] : [nameOf(subject, name)]),
  ];
}

const nameOf = (subject: string, name: string) => JSON.stringify([subject, name]);

/** What is there of what a chunk wants to be. */
interface Known {
  /** By hash, in hex: whose it is. An owner that is no API key has no subject. */
  owners: Map<string, { id: string; subject: string | null }>;
  subjects: Map<string, string>;
  liveNames: Set<string>;
}

async function readKnown(tx: Rows, chunk: readonly Candidate[], now: number): Promise<Known> {
  await freeNamesOfExpired(tx, chunk, now);
  const { apiKeys, secrets } = tx.tables;
  const ids = chunk.flatMap(({ key }) => (key.id === undefined ? [] : [key.id]));
  // Names first: another import may commit in between, and then what has the name is seen to be the same key.
  const named = await tx.db
    .select({ subject: apiKeys.subject, name: apiKeys.name })
    .from(apiKeys)
    .where(isNamedAsIn(tx, chunk));
  const owners = await tx.db
    .select({ hash: secrets.hash, id: secrets.owner_id, subject: apiKeys.subject })
    .from(secrets)
    .leftJoin(apiKeys, and(eq(secrets.owner_kind, 'api_key'), eq(apiKeys.id, secrets.owner_id)))
    .where(
      inArray(
        secrets.hash,
        chunk.map(({ hash }) => hash),
      ),
    );
  const subjects =
    ids.length === 0
      ? []
      : await tx.db
          .select({ id: apiKeys.id, subject: apiKeys.subject })
          .from(apiKeys)
          .where(inArray(apiKeys.id, ids));
  return {
    owners: new Map(owners.map(({ hash, ...owner }) => [hash.toString('hex'), owner])),
    subjects: new Map(subjects.map(({ id, subject }) => [id, subject])),
    liveNames: new Set(named.map(({ subject, name }) => nameOf(subject, name))),
  };
}

/** As `createApiKey` does for one: the name of an expired key is taken from it when somebody wants it. */
async function freeNamesOfExpired(tx: Rows, chunk: readonly Candidate[], now: number) {
  const { apiKeys } = tx.tables;
  await tx.db
    .update(apiKeys)
    .set({ live_name: null })
    .where(and(isNamedAsIn(tx, chunk), lte(apiKeys.expires_at, now)));
}

/** Keys that have one of the names that a chunk wants; the pairs as one, so that both dialects seek them in the index. */
function isNamedAsIn({ tables: { apiKeys } }: Rows, chunk: readonly Candidate[]): SQL {
  const pairs = chunk.map(({ key }) => sql`(${key.subject}, ${key.name})`);
  return sql`(${apiKeys.subject}, ${apiKeys.live_name}) in (values ${sql.join(pairs, sql`, `)})`;
}

/** What is to be said of an item without writing it, or null. */
function judge({ key, hash }: Candidate, known: Known, now: number): ImportOutcome | null {
  const owner = known.owners.get(hash.toString('hex'));
  if (owner) return owner.subject === key.subject ? { outcome: 'exists', id: owner.id } : isTaken('hash');
  const subject = key.id === undefined ? undefined : known.subjects.get(key.id);
  if (key.id !== undefined && subject !== undefined)
    return subject === key.subject ? { outcome: 'exists', id: key.id } : isTaken('id');
  const isLive = !hasExpired(key.expiresAt ?? null, now);
  return isLive && known.liveNames.has(nameOf(key.subject, key.name)) ? refused(nameTaken(key)) : null;
}

const isTaken = (field: 'hash' | 'id') =>
  refused(
    new CountersignError(
      'already_exists',
      `Cannot import API key: '${field}' must be new, or that of a key of the same subject`,
      { field },
    ),
  );

function toRow({ key }: Candidate, now: number): ApiKeyRow {
  const { expiresAt = null } = key;
  return {
    id: key.id ?? hexId('ak_', now),
    subject: key.subject,
    name: key.name,
    live_name: hasExpired(expiresAt, now) ? null : key.name,
    description: key.description ?? null,
    scopes: key.scopes,
    claims: key.claims ?? null,
    created_by: key.createdBy ?? null,
    policy_id: null,
    prefix: PREFIXES.apiKey,
    rate_limit: key.rateLimit?.count ?? null,
    rate_limit_window_seconds: key.rateLimit?.windowSeconds ?? null,
    has_credits: false,
    allowed_cidrs: null,
    rotation_period_seconds: null,
    rotation_expires: false,
    enabled: key.enabled,
    expires_at: expiresAt,
    revoked_at: null,
    revocation_reason: null,
    revocation_note: null,
    last_used_at: null,
    created_at: key.createdAt ?? now,
    updated_at: now,
  };
}

function toSecretRow(deps: Deps, { candidate, row }: { candidate: Candidate; row: ApiKeyRow }): SecretRow {
  return {
    id: sortableId('sec_', deps.now()),
    owner_kind: 'api_key',
    owner_id: row.id,
    hash: candidate.hash,
    pepper_version: deps.keyring.pepperVersion,
    start: candidate.key.start ?? '',
    mac: null,
    created_at: row.created_at,
    expires_at: null,
    revoked_at: null,
    rotate_by: null,
  };
}

/** Writes keys with their secrets, and answers the ids of those that nobody else was quicker with. */
async function write(
  tx: Rows,
  deps: Deps,
  fresh: readonly { candidate: Candidate; row: ApiKeyRow }[],
): Promise<Set<string>> {
  if (fresh.length === 0) return new Set();
  const { apiKeys, secrets } = tx.tables;
  const secretRows = fresh.map((each) => toSecretRow(deps, each));
  // In one order everywhere, so that two imports of the same cannot deadlock.
  secretRows.sort((a, b) => Buffer.compare(a.hash, b.hash));
  const hashed = await tx.db
    .insert(secrets)
    .values(secretRows)
    .onConflictDoNothing()
    .returning({ id: secrets.id, ownerId: secrets.owner_id });
  const secretIds = new Map(hashed.map(({ id, ownerId }) => [ownerId, id]));
  const rows = fresh.flatMap(({ row }) => (secretIds.has(row.id) ? [row] : []));
  if (rows.length === 0) return new Set();
  const inserted = await tx.db
    .insert(apiKeys)
    .values(rows)
    .onConflictDoNothing()
    .returning({ id: apiKeys.id });
  const written = new Set(inserted.map(({ id }) => id));
  const ownerless = [...secretIds].flatMap(([ownerId, id]) => (written.has(ownerId) ? [] : [id]));
  if (ownerless.length > 0) await tx.db.delete(secrets).where(inArray(secrets.id, ownerless));
  return written;
}
