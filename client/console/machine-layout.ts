/** Where machines stand in the graph: who calls left of whom it calls, those that nobody speaks to below. */
import type { MachineScope } from './machine-scopes.tsx';

export interface Place {
  x: number;
  y: number;
}

export const NODE = { width: 190, height: 44 };
const GAP = { x: 120, y: 18 };

type Edge = Pick<MachineScope, 'fromMachineId' | 'toMachineId'>;

/** Places machines in columns, in time proportional to machines and edges. */
export function layOut(ids: readonly string[], edges: readonly Edge[]): ReadonlyMap<string, Place> {
  const speaking = new Set(edges.flatMap(({ fromMachineId, toMachineId }) => [fromMachineId, toMachineId]));
  const callees = listsBy(edges, 'fromMachineId', 'toMachineId');
  const callers = listsBy(edges, 'toMachineId', 'fromMachineId');
  const columns = columnsOf(
    ids.filter((id) => speaking.has(id)),
    callees,
    callers,
  );
  const height = Math.max(0, ...columns.map((column) => column.length));
  const silent = ids.filter((id) => !speaking.has(id));
  const width = Math.max(columns.length, Math.ceil(Math.sqrt(silent.length)));
  const places = new Map<string, Place>();
  for (const [x, column] of columns.entries())
    for (const [y, id] of column.entries()) places.set(id, placeAt(x, y + (height - column.length) / 2));
  for (const [i, id] of silent.entries())
    places.set(id, placeAt(i % width, height + 1 + Math.floor(i / width)));
  return places;
}

const placeAt = (column: number, row: number): Place => ({
  x: column * (NODE.width + GAP.x),
  y: row * (NODE.height + GAP.y),
});

type Lists = ReadonlyMap<string, readonly string[]>;

function listsBy(edges: readonly Edge[], key: keyof Edge, value: keyof Edge): Lists {
  const lists = new Map<string, string[]>();
  for (const edge of edges) {
    const list = lists.get(edge[key]);
    if (list) list.push(edge[value]);
    else lists.set(edge[key], [edge[value]]);
  }
  return lists;
}

/** Each machine right of all that call it; within a column, beside those that do. */
function columnsOf(ids: readonly string[], callees: Lists, callers: Lists): string[][] {
  const order = callersFirst(
    [...ids].sort((a, b) => countOf(callers, a) - countOf(callers, b)),
    callees,
  );
  const turns = new Map(order.map((id, turn) => [id, turn]));
  const depths = new Map<string, number>();
  for (const [turn, id] of order.entries()) {
    const depth = depths.get(id) ?? 0;
    depths.set(id, depth);
    // Back to an earlier one closes a circle, and moves nobody.
    for (const to of callees.get(id) ?? [])
      if ((turns.get(to) ?? -1) > turn) depths.set(to, Math.max(depths.get(to) ?? 0, depth + 1));
  }
  const columns = Array.from({ length: 1 + Math.max(-1, ...depths.values()) }, (): string[] => []);
  for (const id of order) columns[depths.get(id) ?? 0]?.push(id);
  return besideCallers(columns, callers);
}

const countOf = (lists: Lists, id: string) => lists.get(id)?.length ?? 0;

/** An order in which, circles aside, callers come before whom they call. */
function callersFirst(ids: readonly string[], callees: Lists): string[] {
  const known = new Set(ids);
  const seen = new Set<string>();
  const left: string[] = [];
  for (const start of ids) {
    // By a stack of its own: a chain may be longer than the engine's.
    const path = [{ id: start, next: 0 }];
    if (seen.has(start)) continue;
    seen.add(start);
    for (let place = path.at(-1); place; place = path.at(-1)) {
      const to = callees.get(place.id)?.[place.next++];
      if (to === undefined) left.push((path.pop() ?? place).id);
      else if (known.has(to) && !seen.has(to)) {
        seen.add(to);
        path.push({ id: to, next: 0 });
      }
    }
  }
  return left.reverse();
}

/** Column by column, by where on average those stand that call each: fewer lines cross. */
function besideCallers(columns: readonly string[][], callers: Lists): string[][] {
  const rows = new Map<string, number>();
  return columns.map((column) => {
    const wanted = new Map(column.map((id, row) => [id, meanOf(callers.get(id), rows) ?? row]));
    const sorted = [...column].sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0));
    for (const [row, id] of sorted.entries()) rows.set(id, row);
    return sorted;
  });
}

function meanOf(ids: readonly string[] = [], rows: ReadonlyMap<string, number>): number | null {
  const known = ids.flatMap((id) => rows.get(id) ?? []);
  return known.length === 0 ? null : known.reduce((sum, row) => sum + row, 0) / known.length;
}
