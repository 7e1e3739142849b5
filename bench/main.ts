/**
 * `npm run bench [-- name]`: each figure beside its floor, measured in turn in one run, so that what else the machine
 * does falls on both. Writes bench/results.md and bench/results.json; exits 1 when a gate fails.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { FIGURES } from './figures.ts';
import { CORES, canPin } from './processes.ts';
import { type Result, renderResults } from './results.ts';

const PINNED = 'COUNTERSIGN_BENCH_PINNED';
const RESULTS_JSON = new URL('./results.json', import.meta.url);
const RESULTS_MD = new URL('./results.md', import.meta.url);

if (canPin && process.env[PINNED] === undefined) {
  const again = ['-c', CORES.load, process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const { status } = spawnSync('taskset', again, {
    stdio: 'inherit',
    env: { ...process.env, [PINNED]: '1' },
  });
  process.exit(status ?? 1);
}

const wanted = process.argv[2];
const figures = FIGURES.filter((figure) => wanted === undefined || figure.name === wanted);
if (figures.length === 0) {
  process.stderr.write(
    `No figure is called '${wanted}'; there are: ${FIGURES.map(({ name }) => name).join(', ')}\n`,
  );
  process.exit(2);
}

const measured: Result[] = [];
for (const figure of figures) {
  process.stdout.write(`${figure.name} …\n`);
  for (const result of await figure.measure()) {
    measured.push(result);
    const ratio = result.ratio === null ? '' : `, ${result.ratio.toFixed(2)} × ${result.against}`;
    process.stdout.write(
      `  ${result.name}: ${result.value} ${result.unit}${ratio} (gate ${result.gate}): ${result.pass ? 'pass' : 'FAIL'}\n`,
    );
  }
}

const names = new Set(measured.map(({ name }) => name));
const kept = (
  existsSync(RESULTS_JSON) ? (JSON.parse(readFileSync(RESULTS_JSON, 'utf8')) as Result[]) : []
).filter(({ name }) => !names.has(name));
const results = [...kept, ...measured].sort((a, b) => (a.name < b.name ? -1 : 1));
writeFileSync(RESULTS_JSON, `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(
  RESULTS_MD,
  renderResults(results, `${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}`),
);
process.exit(measured.every(({ pass }) => pass) ? 0 : 1);
