/** Records of a file of keys, NDJSON or CSV, one after another: a file of any length is read in little memory. */
import { isUtf8 } from 'node:buffer';
import { CountersignError } from './errors.ts';

export type RecordFormat = 'ndjson' | 'csv';

/** Where in a file something ends. */
export interface Place {
  /** Bytes before it. */
  offset: number;
  /** Lines before it. */
  lines: number;
}

export interface KeyRecord {
  /** Its first line, from 1. */
  line: number;
  end: Place;
  /** What it says, or what is wrong with it; never its content, which may be a secret. */
  content: { fields: Record<string, unknown> } | { problem: string };
}

/** More than any key is allowed to say. */
const RECORD_BYTES_MAX = 64 * 1024;

const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const COMMA = 0x2c;

/** The records of an NDJSON file from a place on. */
export async function* readNdjson(chunks: AsyncIterable<Buffer>, from: Place): AsyncGenerator<KeyRecord> {
  for await (const { bytes, line, end } of split(chunks, from, false)) {
    yield { line, end, content: bytes === null ? TOO_LONG : readJson(bytes) };
  }
}

/** The records of a CSV file from a place on, under the names of its columns: without them, its first line has those. */
export async function* readCsv(
  chunks: AsyncIterable<Buffer>,
  from: Place,
  columns?: readonly Column[],
): AsyncGenerator<KeyRecord> {
  let named = columns;
  for await (const { bytes, line, end } of split(chunks, from, true)) {
    if (named) yield { line, end, content: bytes === null ? TOO_LONG : readRow(bytes, named) };
    else named = headerOf(bytes);
  }
}

/** The names of the columns of a CSV file, from its beginning. */
export async function readColumns(chunks: AsyncIterable<Buffer>): Promise<Column[]> {
  for await (const { bytes } of split(chunks, { offset: 0, lines: 0 }, true)) return headerOf(bytes);
  return headerOf(null);
}

/** What a key may say in a file, and how each is read from the text of a cell. */
const COLUMNS = {
  hash: (cell: string) => cell,
  value: (cell: string) => cell,
  subject: (cell: string) => cell,
  name: (cell: string) => cell,
  id: (cell: string) => cell,
  description: (cell: string) => cell,
  scopes: (cell: string) => cell.split(' ').filter((scope) => scope !== ''),
  claims: (cell: string) => JSON.parse(cell) as unknown,
  createdAt: (cell: string) => cell,
  createdBy: (cell: string) => cell,
  expiresAt: (cell: string) => cell,
  enabled: (cell: string) => JSON.parse(cell) as unknown,
  start: (cell: string) => cell,
  rateLimit: (cell: string) => JSON.parse(cell) as unknown,
} as const satisfies Record<string, (cell: string) => unknown>;

export type Column = keyof typeof COLUMNS;

const isColumn = (name: string): name is Column => Object.hasOwn(COLUMNS, name);
const NAMES = Object.keys(COLUMNS).join(', ');

function headerOf(bytes: Buffer | null): Column[] {
  const cells = (bytes && cellsOf(bytes.toString()))?.map((cell) => cell.trim()) ?? [''];
  // By its number: in a file without a header these are secrets.
  const unknown = cells.findIndex((cell) => !isColumn(cell));
  if (unknown !== -1)
    throw refusal(`wanted each column of the first line to be one of ${NAMES}; column ${unknown + 1} is not`);
  if (new Set(cells).size < cells.length) throw refusal('wanted each column of the first line once');
  return cells.filter(isColumn);
}

const refusal = (message: string) => new CountersignError('invalid_input', `Cannot read the CSV: ${message}`);

interface Piece {
  /** Null where it is too long to be kept. */
  bytes: Buffer | null;
  line: number;
  end: Place;
}

/** Cuts at line feeds, outside quotes where those have a meaning. Empty lines count, and are left out. */
async function* split(chunks: AsyncIterable<Buffer>, from: Place, hasQuotes: boolean): AsyncGenerator<Piece> {
  let { offset, lines } = from;
  let line = lines + 1;
  let state: CellState = 'begins';
  let length = 0;
  let kept: Buffer[] = [];

  function take(part: Buffer) {
    length += part.length;
    if (length > RECORD_BYTES_MAX) kept = [];
    else kept.push(part);
  }

  function* end(): Generator<Piece> {
    const bytes = length > RECORD_BYTES_MAX ? null : trimmed(Buffer.concat(kept), offset === length);
    if (bytes === null || bytes.length > 0) yield { bytes, line, end: { offset, lines } };
    kept = [];
    length = 0;
    state = 'begins';
    line = lines + 1;
  }

  for await (const chunk of chunks) {
    let begin = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i];
      if (hasQuotes) state = stateAfter(state, byte);
      if (byte !== LINE_FEED) continue;
      lines++;
      if (state === 'quoted') continue;
      take(chunk.subarray(begin, i + 1));
      offset += i + 1 - begin;
      begin = i + 1;
      yield* end();
    }
    take(chunk.subarray(begin));
    offset += chunk.length - begin;
  }
  if (length > 0) {
    lines++;
    yield* end();
  }
}

/** Only a quote that begins a cell opens one: a stray one must not swallow the lines after it. */
type CellState = 'begins' | 'plain' | 'quoted' | 'after quote';

function stateAfter(state: CellState, byte: number | undefined): CellState {
  if (state === 'quoted') return byte === QUOTE ? 'after quote' : 'quoted';
  if (byte === QUOTE && state !== 'plain') return 'quoted';
  return byte === COMMA ? 'begins' : 'plain';
}

const BYTE_ORDER_MARK = Buffer.from('\u{feff}');

/** Without its line end and, where the file begins, the mark that some editors put there. */
function trimmed(bytes: Buffer, isFirst: boolean): Buffer {
  let end = bytes.length;
  while (end > 0 && (bytes[end - 1] === LINE_FEED || bytes[end - 1] === 0x0d)) end--;
  const hasMark = isFirst && bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
  return bytes.subarray(hasMark ? BYTE_ORDER_MARK.length : 0, end);
}

type Content = KeyRecord['content'];

const TOO_LONG: Content = {
  problem: `Cannot read the record: wanted at most ${RECORD_BYTES_MAX} bytes, found more; is a quote not closed?`,
};
const NOT_UTF8: Content = { problem: 'Cannot read the record: wanted UTF-8' };

/** Fields that nothing is known of are refused here: what they hold may be the value itself, under another name. */
function readJson(bytes: Buffer): Content {
  if (!isUtf8(bytes)) return NOT_UTF8;
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString());
  } catch {
    return { problem: 'Cannot read the record: wanted valid JSON' };
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    return { problem: 'Cannot read the record: wanted an object' };
  if (!Object.keys(json).every(isColumn))
    return { problem: `Cannot read the record: wanted no other fields than ${NAMES}` };
  return withInstants({ ...json });
}

function readRow(bytes: Buffer, columns: readonly Column[]): Content {
  if (!isUtf8(bytes)) return NOT_UTF8;
  const cells = cellsOf(bytes.toString());
  if (!cells) return { problem: 'Cannot read the record: wanted quotes around what holds a quote, doubled' };
  if (cells.length !== columns.length)
    return { problem: `Cannot read the record: wanted ${columns.length} columns, found ${cells.length}` };
  const fields: Record<string, unknown> = {};
  for (const [index, column] of columns.entries()) {
    const cell = cells[index] ?? '';
    if (cell === '') continue;
    try {
      fields[column] = COLUMNS[column](cell);
    } catch {
      return { problem: `Cannot read the record: wanted '${column}' to be valid JSON` };
    }
  }
  return withInstants(fields);
}

/** Instants may be written as ISO 8601 has them, or in milliseconds. */
function withInstants(fields: Record<string, unknown>): Content {
  for (const field of ['createdAt', 'expiresAt']) {
    const given = fields[field];
    if (typeof given !== 'string') continue;
    const instant = /^\d+$/.test(given)
      ? Number(given)
      : ISO_INSTANT.test(given)
        ? Date.parse(given)
        : Number.NaN;
    if (Number.isNaN(instant))
      return {
        problem: `Cannot read the record: wanted '${field}' in milliseconds, or as in 2026-01-31T12:00:00Z`,
      };
    fields[field] = instant;
  }
  return { fields };
}

/** With its distance from UTC: without one it would mean something else on each machine. */
const ISO_INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;

/** The cells of one record (RFC 4180, section 2), or null where quotes are not as they should be. */
function cellsOf(text: string): string[] | null {
  const cells: string[] = [];
  for (let at = 0; ; at++) {
    const isQuoted = text[at] === '"';
    const close = isQuoted ? closingQuote(text, at + 1) : -1;
    if (isQuoted && close === -1) return null;
    const end = isQuoted ? close + 1 : nextComma(text, at);
    const cell = isQuoted ? text.slice(at + 1, close).replaceAll('""', '"') : text.slice(at, end);
    if (!isQuoted && cell.includes('"')) return null;
    cells.push(cell);
    if (end === text.length) return cells;
    if (text[end] !== ',') return null;
    at = end;
  }
}

function nextComma(text: string, from: number): number {
  const comma = text.indexOf(',', from);
  return comma === -1 ? text.length : comma;
}

/** The quote that is not one of two, or -1. */
function closingQuote(text: string, from: number): number {
  for (let at = text.indexOf('"', from); at !== -1; at = text.indexOf('"', at + 2)) {
    if (text[at + 1] !== '"') return at;
  }
  return -1;
}
