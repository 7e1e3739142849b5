/** Lists: bounded pages that follow an index, by cursor or, for those who count, by offset. */
import { asc, type Column, desc, eq, inArray, or, type SQL, sql, type Table } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import { CountersignError } from '../errors.ts';

export const PAGE_SIZE_MAX = 500;
/** Offsets are walked, so they are bounded; a cursor reaches the rest. */
export const OFFSET_MAX = 10_000;

/** Counting is walking too. Where there are more, this is what is answered. */
export const COUNT_MAX = 10_000;

export const pageInput = {
  limit: z.number().int().min(1).max(PAGE_SIZE_MAX).default(50),
  cursor: z.string().max(1024).optional(),
  offset: z.number().int().min(0).max(OFFSET_MAX).default(0),
};

export interface Page<T> {
  data: T[];
  /** Pass it back as `cursor` for the next page; null on the last. */
  nextCursor: string | null;
}

type CursorKey = [sortValue: string | number, id: string];

/** PostgreSQL has no NUL in text and no fractions in bigint: a made-up cursor must not reach it. */
const cursorText = z.string().refine((text) => !text.includes('\0'));
const cursorKey = z.tuple([z.union([cursorText, z.number().int()]), cursorText]);

/**
 * The condition that a row comes after the cursor, in an order by `column` and then `id`. It compares the pair as one,
 * which both dialects can seek in an index; written out with OR, SQLite walks the index from its beginning.
 */
export function afterCursor(
  cursor: string | undefined,
  column: Column,
  id: Column,
  descending: boolean,
): SQL | undefined {
  if (cursor === undefined) return undefined;
  const [value, lastId] = decodeCursor(cursor, column.dataType === 'number' ? 'number' : 'string');
  return descending
    ? sql`(${column}, ${id}) < (${value}, ${lastId})`
    : sql`(${column}, ${id}) > (${value}, ${lastId})`;
}

export function orderOf(column: Column, id: Column, descending: boolean): SQL[] {
  const direction = descending ? desc : asc;
  return [direction(column), direction(id)];
}

/** That a column holds a text, in any case of ASCII letters; wild cards have no meaning in it. */
export function containsText(column: Column, text: string): SQL {
  const literal = text.replace(/[\\%_]/g, '\\$&').replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  return sql`lower(${column}) like ${`%${literal}%`} escape '\\'`;
}

/** That a row has an id, or a name that holds a text: names are looked at of the newest `SEARCH_CANDIDATES_MAX` alone. */
export function isOrIsNamed({ db }: Rows, table: NamedTable, query: string): SQL | undefined {
  const t = table as Rows['tables']['machines'];
  const candidates = db
    .select({ id: t.id, name: t.name })
    .from(t)
    .orderBy(desc(t.created_at))
    .limit(SEARCH_CANDIDATES_MAX)
    .as('candidates');
  const found = db.select({ id: candidates.id }).from(candidates).where(containsText(candidates.name, query));
  return or(eq(t.id, query), inArray(t.id, found));
}

type NamedTable = Table & { id: Column; name: Column; created_at: Column };

/** Cuts a page from rows that were read with one more than its limit. */
export function toPage<R, T>(
  rows: R[],
  limit: number,
  key: (row: R) => CursorKey,
  view: (row: R) => T,
): Page<T> {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    data: page.map(view),
    nextCursor: rows.length > limit && last !== undefined ? encodeCursor(key(last)) : null,
  };
}

/** A search looks at no more rows than this for one page: beyond, it would hold the event loop. */
export const SEARCH_CANDIDATES_MAX = 10_000;

/** How a list is searched for what no index answers. `C` is as much of a row as its place in the order needs. */
interface Search<C, R extends C> {
  /** Whether anything is asked for that no index answers. */
  isFiltered: boolean;
  /** The rows that pass among the first candidates in order: from the offset on, one more than the page holds. */
  rows(candidatesMax: number): Promise<R[]>;
  /** The candidate at a place in order, 0 for the first; none where there are not so many. */
  candidate(place: number): Promise<C[]>;
  key(row: C): CursorKey;
}

/**
 * A page of what no index answers, looked for among at most `SEARCH_CANDIDATES_MAX` candidates: then it may be short,
 * even empty, and still have a `nextCursor`.
 */
export async function searchPage<C, R extends C>(
  { limit, offset }: { limit: number; offset: number },
  search: Search<C, R>,
): Promise<Page<R>> {
  const candidatesMax = search.isFiltered ? SEARCH_CANDIDATES_MAX : offset + limit + 1;
  const page = toPage(await search.rows(candidatesMax), limit, search.key, (row) => row);
  if (page.nextCursor !== null || !search.isFiltered) return page;
  const [last] = await search.candidate(SEARCH_CANDIDATES_MAX - 1);
  return { data: page.data, nextCursor: last === undefined ? null : encodeCursor(search.key(last)) };
}

export function encodeCursor(key: CursorKey): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

function decodeCursor(cursor: string, type: 'string' | 'number'): CursorKey {
  try {
    const key = cursorKey.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString()));
    if (typeof key[0] === type) return key;
  } catch {
    // Not a cursor at all: refused below, as is one of another list.
  }
  throw new CountersignError(
    'invalid_input',
    "Cannot list: 'cursor' must be the 'nextCursor' of the page before",
    {
      field: 'cursor',
    },
  );
}
