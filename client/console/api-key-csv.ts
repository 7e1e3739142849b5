/** A CSV file of API keys, sent in batches of rows; values are hashed before, and never leave the browser. */
import Papa from 'papaparse';
import { countersign, type Inputs } from './countersign.ts';

type Item = Inputs['apiKeys']['import']['items'][number];
type Shape = NonNullable<Inputs['apiKeys']['import']['shapes']>[number];

/** What became of a row, by its number from 1: neither the first line nor empty ones count. */
export type ImportedRow =
  | { row: number; outcome: 'imported' | 'exists'; id: string }
  | { row: number; outcome: 'refused'; message: string };

/** Of those that the server takes, as many as fit into a body. */
const BATCH_ROWS = 200;

/** How each column is read; what is not among them is refused, because it may be a value under another name. */
const COLUMNS: Record<string, (cell: string) => unknown> = {
  hash: (cell) => cell,
  value: (cell) => cell,
  subject: (cell) => cell,
  name: (cell) => cell,
  id: (cell) => cell,
  description: (cell) => cell,
  scopes: (cell) => cell.split(' ').filter((scope) => scope !== ''),
  claims: (cell) => JSON.parse(cell) as unknown,
  createdAt: instantOf,
  createdBy: (cell) => cell,
  expiresAt: instantOf,
  enabled: (cell) => JSON.parse(cell) as unknown,
  start: (cell) => cell,
  rateLimit: (cell) => JSON.parse(cell) as unknown,
};

/** In milliseconds, or as ISO 8601 has it with its distance from UTC. */
function instantOf(cell: string): number {
  if (/^\d+$/.test(cell)) return Number(cell);
  const at = /(Z|[+-]\d\d:\d\d)$/.test(cell) ? Date.parse(cell) : Number.NaN;
  if (Number.isNaN(at)) throw new SyntaxError('not an instant');
  return at;
}

/**
 * Imports row after row, and tells what became of those of each batch and how much of the file is done. Rejects where a
 * batch is not answered: what was answered is imported, and is already there when the file is imported again.
 */
export async function importCsv(
  file: File,
  shape: Shape | null,
  signal: AbortSignal,
  told: (rows: ImportedRow[], share: number) => void,
): Promise<void> {
  const { data, meta, errors } = await parse(file);
  const unknown = (meta.fields ?? []).findIndex((column) => !Object.hasOwn(COLUMNS, column));
  if (unknown !== -1 || (meta.fields ?? []).length === 0)
    throw new Error(
      `Wanted each column of the first line to be one of ${Object.keys(COLUMNS).join(', ')}; column ${unknown + 1} is not`,
    );
  const broken = new Map(errors.map(({ row, message }) => [row, message]));
  for (let begin = 0; begin < data.length; begin += BATCH_ROWS) {
    signal.throwIfAborted();
    const rows = data.slice(begin, begin + BATCH_ROWS);
    told(
      await sendBatch(rows, begin, broken, shape, signal),
      Math.min(1, (begin + rows.length) / data.length),
    );
  }
}

type Cells = Record<string, string>;

const parse = (file: File) =>
  new Promise<Papa.ParseResult<Cells>>((resolve, reject) => {
    Papa.parse<Cells>(file, {
      header: true,
      skipEmptyLines: 'greedy',
      transformHeader: (name) => name.trim(),
      complete: resolve,
      error: reject,
    });
  });

async function sendBatch(
  rows: readonly Cells[],
  begin: number,
  broken: ReadonlyMap<number | undefined, string>,
  shape: Shape | null,
  signal: AbortSignal,
): Promise<ImportedRow[]> {
  const numberOf = (index: number) => begin + index + 1;
  const refused: ImportedRow[] = [];
  const sent: { row: number; item: Item }[] = [];
  for (const [index, cells] of rows.entries()) {
    const row = numberOf(index);
    const read = broken.get(begin + index) ?? (await itemOf(cells));
    if (typeof read === 'string') refused.push({ row, outcome: 'refused', message: read });
    else sent.push({ row, item: read as Item });
  }
  if (sent.length === 0) return refused;
  const input = { items: sent.map(({ item }) => item), ...(shape && { shapes: [shape] }) };
  const { results } = await countersign.apiKeys.import.mutate(input, { signal });
  const answered = results.map((result, index): ImportedRow => {
    const row = sent[index]?.row ?? 0;
    return result.outcome === 'refused'
      ? { row, outcome: 'refused', message: result.message }
      : { row, outcome: result.outcome, id: result.id };
  });
  return [...refused, ...answered].sort((a, b) => a.row - b.row);
}

/** What a row says, without its value, or what is wrong: never in the words of its cells, one of which may be a secret. */
async function itemOf(cells: Cells): Promise<Record<string, unknown> | string> {
  const item: Record<string, unknown> = {};
  for (const [column, cell] of Object.entries(cells)) {
    const read = COLUMNS[column];
    if (!read || cell === '') continue;
    try {
      item[column] = read(cell);
    } catch {
      return `Wanted '${column}' to be ${column.endsWith('At') ? 'an instant' : 'valid JSON'}`;
    }
  }
  const { value, ...rest } = item;
  if (typeof value !== 'string') return rest;
  return { start: value.slice(0, 9), ...rest, hash: await sha256(value) };
}

async function sha256(value: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(value));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
