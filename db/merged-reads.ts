import type pg from 'pg';
import type { PreparedText } from './store.ts';

interface Waiting {
  values: unknown[];
  resolve: (rows: unknown[][]) => void;
  reject: (error: unknown) => void;
}

/** So many executions travel together at most: the rows of more would arrive late for those who asked first. */
const MERGED_MAX = 64;

/**
 * Executions of one statement that were asked for in the same turn of the event loop travel as one: most of what a read
 * costs on PostgreSQL is its way there and back. Their values are joined to the statement as rows of `unnest` (PostgreSQL,
 * section 7.2.1.4), so that each sees all that was committed before it was asked for. For statements without a parameter
 * in LIMIT, whose parameters are text, bytes, whole numbers or booleans.
 */
export function mergedReads(client: pg.Pool, name: string, text: string): PreparedText {
  const single: PreparedText = async (values) =>
    (await client.query<unknown[]>({ name, text, values, rowMode: 'array' })).rows;
  let waiting: Waiting[] = [];

  async function send(group: readonly Waiting[]): Promise<void> {
    try {
      const answers = group.length === 1 ? [await single(group[0]?.values ?? [])] : await merged(group);
      for (const [i, { resolve }] of group.entries()) resolve(answers[i] ?? []);
    } catch (error) {
      if (group.length > 1 && isOfOne(error)) for (const one of group) void send([one]);
      else for (const { reject } of group) reject(error);
    }
  }

  async function merged(group: readonly Waiting[]): Promise<unknown[][][]> {
    const columns = (group[0]?.values ?? []).map((_, i) => group.map(({ values }) => values[i]));
    const types = columns.map(arrayTypeOf);
    const { rows } = await client.query<unknown[]>({
      // PostgreSQL tells names apart by their first 63 bytes.
      name: `${name}_${types.map((type) => type.slice(0, 2)).join('')}`,
      text: mergedText(text, types),
      values: columns,
      rowMode: 'array',
    });
    const answers: unknown[][][] = group.map(() => []);
    for (const [position, ...row] of rows) answers[Number(position) - 1]?.push(row);
    return answers;
  }

  function sendAll() {
    const all = waiting;
    waiting = [];
    for (let i = 0; i < all.length; i += MERGED_MAX) void send(all.slice(i, i + MERGED_MAX));
  }

  return (values) =>
    new Promise((resolve, reject) => {
      if (values.length === 0) resolve(single(values));
      else if (waiting.push({ values, resolve, reject }) === 1) setImmediate(sendAll);
    });
}

/** Data exception, or an error in the statement (PostgreSQL, appendix A, classes 22 and 42): one's fault is not all's. */
const isOfOne = (error: unknown) => /^(22|42)/.test(String((error as { code?: unknown }).code));

function arrayTypeOf(values: readonly unknown[]): string {
  const value = values.find((each) => each !== null);
  if (Buffer.isBuffer(value)) return 'bytea';
  return ARRAY_TYPES.get(typeof value) ?? 'text';
}

const ARRAY_TYPES: ReadonlyMap<string, string> = new Map([
  ['number', 'bigint'],
  ['boolean', 'boolean'],
]);

function mergedText(text: string, types: readonly string[]): string {
  const arrays = types.map((type, i) => `$${i + 1}::${type}[]`).join(', ');
  const names = types.map((_, i) => `p${i + 1}`).join(', ');
  const each = text.replace(/\$(\d+)/g, 'asked.p$1');
  return `SELECT asked.position, found.* FROM unnest(${arrays}) WITH ORDINALITY AS asked(${names}, position) CROSS JOIN LATERAL (${each}) AS found ORDER BY asked.position`;
}
