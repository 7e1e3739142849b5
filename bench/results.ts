/** One measured figure, as `bench/results.json` lists it. */
export interface Result {
  name: string;
  /** Median over the rounds. */
  value: number;
  unit: string;
  /** The least and the most of the rounds. */
  spread: [number, number];
  /** What it is compared with, in the same run; null where the gate is absolute. */
  against: string | null;
  /** Median of the ratios, round by round. */
  ratio: number | null;
  gate: string;
  pass: boolean;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

const round = (value: number) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3)));

const spreadOf = (values: readonly number[]): [number, number] => [
  round(Math.min(...values)),
  round(Math.max(...values)),
];

/** A figure that must be at least `gate` times what it is measured against. */
export function ratioResult(
  name: string,
  unit: string,
  against: string,
  gate: number,
  rounds: readonly { ours: number; theirs: number }[],
): Result {
  const ratio = median(rounds.map(({ ours, theirs }) => ours / theirs));
  const ours = rounds.map((values) => values.ours);
  return {
    name,
    value: round(median(ours)),
    unit,
    spread: spreadOf(ours),
    against,
    ratio: Number(ratio.toFixed(3)),
    gate: `≥ ${gate} ×`,
    pass: ratio >= gate,
  };
}

/** A figure that must be at most `gate`. */
export function ceilingResult(name: string, unit: string, gate: number, values: readonly number[]): Result {
  const value = median(values);
  return {
    name,
    value: round(value),
    unit,
    spread: spreadOf(values),
    against: null,
    ratio: null,
    gate: `≤ ${gate}`,
    pass: value <= gate,
  };
}

export function renderResults(results: readonly Result[], machine: string): string {
  const rows = results.map(
    ({ name, value, unit, spread, against, ratio, gate, pass }) =>
      `| ${name} | ${value} ${unit} | ${spread[0]} – ${spread[1]} | ${against ?? '–'} | ${ratio ?? '–'} | ${gate} | ${pass ? 'pass' : '**fail**'} |`,
  );
  return `# Measured

Made by \`npm run bench\`. Server on one core, load on the other, 32 keep-alive connections, 1,000 keys, every answer 2xx.
Values are medians; a ratio is the median of the rounds' ratios, ours and theirs measured in turn. ${machine}.

| figure | median | spread | against | ratio | gate | |
| --- | --- | --- | --- | --- | --- | --- |
${rows.join('\n')}
`;
}
