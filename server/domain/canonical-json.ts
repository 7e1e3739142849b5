/** A text that is one for the same JSON, in whatever order the fields of its objects were written. */
export const canonicalJson = (value: unknown): string => JSON.stringify(canonical(value)) ?? 'null';

/** Objects as lists of pairs, their names in one order: an object may not hold every name. What is undefined is not there. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return ['list', value.map(canonical)];
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .filter(([, inner]) => inner !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return ['object', entries.map(([name, inner]) => [name, canonical(inner)])];
}
