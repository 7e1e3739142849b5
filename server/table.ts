/** Answers as text that a person reads: lists as aligned columns, single things as lines. */

type Row = Record<string, unknown>;

/** `{ data, … }` becomes a table, anything else a field on each line. */
export function toTable(answer: unknown): string {
  if (!isRow(answer)) return cell('', answer);
  const { data, ...rest } = answer;
  if (!Array.isArray(data)) return lines(answer);
  const rows = data.filter(isRow);
  const table = rows.length === 0 ? 'None' : columns(rows);
  const more = Object.entries(rest).filter(([, value]) => value !== null);
  return more.length === 0 ? table : `${table}\n\n${lines(Object.fromEntries(more))}`;
}

function columns(rows: Row[]): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = [names, ...rows.map((row) => names.map((name) => cell(name, row[name])))];
  const widths = names.map((_, index) => Math.max(...cells.map((line) => line[index]?.length ?? 0)));
  return cells
    .map((line) =>
      line
        .map((text, index) => text.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function lines(row: Row): string {
  const width = Math.max(...Object.keys(row).map((name) => name.length));
  return Object.entries(row)
    .map(([name, value]) => `${name.padEnd(width)}  ${cell(name, value)}`.trimEnd())
    .join('\n');
}

function cell(name: string, value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'number' && /(^a|A)t$/.test(name)) return new Date(value).toISOString();
  if (Array.isArray(value) && value.every((item) => typeof item === 'string'))
    return printable(value.join(' '));
  return printable(typeof value === 'string' ? value : JSON.stringify(value));
}

/** What others wrote must not steer the terminal. */
export const printable = (text: string) => text.replace(/[\p{Cc}\p{Cf}]/gu, '\u{fffd}');

const isRow = (value: unknown): value is Row =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
