/**
 * `npm run bench [-- name …]`: each figure beside its floors and peers, measured in turn in one run, so that what else
 * the machine does falls on all. Writes bench/results.md and bench/results.json; exits 1 unless every gate was measured
 * and passed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { FIGURES } from './figures.ts';
import { CORES, canPin } from './processes.ts';
import { merged, type Result, renderLine, renderResults } from './results.ts';

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

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !FIGURES.some((figure) => figure.name === name));
if (unknown !== undefined) {
  const names = FIGURES.map(({ name }) => name).join(', ');
  process.stderr.write(`No figure is called '${unknown}'; there are: ${names}\n`);
  process.exit(2);
}

const started = performance.now();
const measured: Result[] = [];
for (const { name, measure, onlyNamed } of FIGURES) {
  if (wanted.length > 0 ? !wanted.includes(name) : onlyNamed) continue;
  process.stdout.write(`${name} …\n`);
  for (const result of await measure()) {
    measured.push(result);
    process.stdout.write(`  ${renderLine(result)}\n`);
  }
}
process.stdout.write(`Measured in ${Math.round((performance.now() - started) / 1000)} s\n`);

const earlier = existsSync(RESULTS_JSON) ? (JSON.parse(readFileSync(RESULTS_JSON, 'utf8')) as Result[]) : [];
const results = merged(earlier, measured);
const machine = [
  cpus()[0]?.model.trim() ?? 'unknown CPU',
  `${Math.round(totalmem() / 2 ** 30)} GB`,
  `Node ${process.version}`,
].join(', ');
writeFileSync(RESULTS_JSON, `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(RESULTS_MD, renderResults(results, machine));
process.exit(measured.every(({ pass }) => pass === true) ? 0 : 1);
