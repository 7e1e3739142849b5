/** What was measured, as `bench/results.json` lists it and `bench/results.md` shows it. */
import type { Round } from './rounds.ts';
import { median } from './statistics.ts';

export interface Result {
  name: string;
  /** Median over the rounds; null where it could not be measured. */
  value: number | null;
  unit: string;
  /** The least and the most of the rounds. */
  spread: [number, number] | null;
  /** What it is compared with, in the same run; null where the gate is absolute. */
  against: string | null;
  /** Median of the ratios, round by round. */
  ratio: number | null;
  gate: string;
  /** Null where it could not be measured, which is no pass. */
  pass: boolean | null;
  /** Why it could not be measured. */
  missing?: string;
  /** The shares of their core that we and what we are compared with had: one well below 1 was held up by something else. */
  busy?: [number, number];
}

interface Compared {
  name: string;
  against: string;
}

export interface Rated extends Compared {
  unit: string;
  /** How many times as much as what it is compared with it must be at least. */
  atLeast: number;
}

/** A rate that must be at least so many times another. */
export function rateResult(
  { name, against, unit, atLeast }: Rated,
  ours: readonly Round[],
  theirs: readonly Round[],
): Result {
  const rates = ours.map(({ perSecond }) => perSecond);
  const ratio = median(rates.map((rate, round) => rate / perSecondOf(theirs, round)));
  return {
    name,
    ...described(rates, unit),
    against,
    ratio: rounded(ratio),
    gate: gateAtLeast(atLeast),
    pass: ratio >= atLeast,
    busy: [busyShare(ours), busyShare(theirs)],
  };
}

/** The time of one request, which must be at most so many times that of another. */
export function timeResult(
  { name, against, atMost }: Compared & { atMost: number },
  ours: readonly Round[],
  theirs: readonly Round[],
): Result {
  const ratio = median(ours.map(({ perSecond }, round) => perSecondOf(theirs, round) / perSecond));
  return {
    name,
    ...described(
      ours.map(({ perSecond }) => 1e6 / perSecond),
      'µs/req',
    ),
    against,
    ratio: rounded(ratio),
    gate: `≤ ${atMost} ×`,
    pass: ratio <= atMost,
    busy: [busyShare(ours), busyShare(theirs)],
  };
}

/** A figure that must be at most `atMost`. */
export function ceilingResult(name: string, unit: string, atMost: number, values: readonly number[]): Result {
  return {
    name,
    ...described(values, unit),
    against: null,
    ratio: null,
    gate: `≤ ${atMost}`,
    pass: median(values) <= atMost,
  };
}

/** Something that must be at least so much. */
export const floorResult = (
  name: string,
  unit: string,
  atLeast: number,
  values: readonly number[],
): Result => ({
  name,
  ...described(values, unit),
  against: null,
  ratio: null,
  gate: `≥ ${atLeast}`,
  pass: median(values) >= atLeast,
});

/** Something that may be at most so many times what it was otherwise; medians of rounds that were not in turn. */
export function ratioCeiling(
  { name, against, atMost }: Compared & { atMost: number },
  unit: string,
  values: readonly number[],
  otherwise: readonly number[],
): Result {
  const ratio = median(values) / median(otherwise);
  return {
    name,
    ...described(values, unit),
    against: `${against}, ${rounded(median(otherwise))} ${unit}`,
    ratio: rounded(ratio),
    gate: `≤ ${atMost} ×`,
    pass: ratio <= atMost,
  };
}

/** What has a gate of its own, and could not be measured. */
export const unmeasured = (name: string, unit: string, gate: string, missing: string): Result => ({
  name,
  value: null,
  unit,
  spread: null,
  against: null,
  ratio: null,
  gate,
  pass: null,
  missing,
});

/** How many times the noise a difference may be. */
const NOISES_MAX = 3;
/** With more, any difference would pass. */
const NOISE_MICROS_MAX = 5;

/** A difference in µs that must be within the noise, which must be small itself: see `bench/figures/timing.ts`. */
export function differenceResult(
  { name, against }: Compared,
  differences: readonly number[],
  noise: number,
): Result {
  const noises = Math.abs(median(differences)) / noise;
  const result = {
    name,
    ...described(differences, 'µs'),
    against: `${against}, noise ${rounded(noise)} µs`,
    ratio: rounded(noises),
    gate: `≤ ${NOISES_MAX} × the noise`,
  };
  if (noise > NOISE_MICROS_MAX) {
    return { ...result, pass: null, missing: `wanted noise of at most ${NOISE_MICROS_MAX} µs` };
  }
  return { ...result, pass: noises <= NOISES_MAX };
}

/** A comparison that could not be made; ours where that was measured all the same. */
export function missingResult(
  { name, against, unit, atLeast }: Rated,
  missing: string,
  ours: readonly Round[] = [],
): Result {
  const rates = ours.map(({ perSecond }) => perSecond);
  return {
    ...unmeasured(name, unit, gateAtLeast(atLeast), missing),
    ...(rates.length > 0 && described(rates, unit)),
    against,
  };
}

const gateAtLeast = (atLeast: number) => `≥ ${atLeast} ×`;

const perSecondOf = (rounds: readonly Round[], round: number) => rounds[round]?.perSecond ?? Number.NaN;

const busyShare = (rounds: readonly Round[]) => Number(median(rounds.map(({ busy }) => busy)).toFixed(2));

function described(values: readonly number[], unit: string): Pick<Result, 'value' | 'unit' | 'spread'> {
  return {
    value: rounded(median(values)),
    unit,
    spread: [rounded(Math.min(...values)), rounded(Math.max(...values))],
  };
}

/** To three figures; above a hundred, to whole numbers. */
const rounded = (value: number) =>
  Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));

/** This run's results, and of earlier ones those whose name this one has none of; by name. */
export function merged(earlier: readonly Result[], measured: readonly Result[]): Result[] {
  const names = new Set(measured.map(({ name }) => name));
  const kept = earlier.filter(({ name }) => !names.has(name));
  // Stable: several comparisons of one measurement stay in their order.
  return [...kept, ...measured].sort((a, b) => (a.name === b.name ? 0 : a.name < b.name ? -1 : 1));
}

/** One line for the terminal. */
export function renderLine(result: Result): string {
  const { name, value, unit, against, ratio, gate } = result;
  const measured = value === null ? '' : ` ${value} ${unit}`;
  const compared = against === null ? '' : `, ${ratio === null ? '' : `${ratio} × `}${against}`;
  return `${name}:${measured}${compared} (gate ${gate}): ${verdict(result, 'FAIL')}`;
}

function verdict({ pass, missing }: Result, failed: string): string {
  if (pass === null) return `not measured: ${missing}`;
  return pass ? 'pass' : failed;
}

export function renderResults(results: readonly Result[], machine: string): string {
  return `# Measured

Made by \`npm run bench\` on ${machine}.

The server has one core, the load the other: 32 keep-alive connections, 1,000 keys, every answer 2xx. Everybody is warmed
up for 6 s, then measured in turn, round by round; who is not being measured is stopped. Values are medians of the rounds, a ratio
is the median of the rounds' ratios. *Busy* is the share of its core that we, and what we are compared with, had: well
below 1, something else was the limit. \`verify-10m\` is measured only when named, and is of the last run that did.

| figure | median | spread | against | ratio | busy | gate | |
| --- | --- | --- | --- | --- | --- | --- | --- |
${results.map(renderRow).join('\n')}

- **verify**: API keys with a rate limit that is never reached, their use counted. The floor stores and reads as we do (a
  file, WAL, the same settings), authenticates the caller, hashes both values with a pepper, reads both rows in one
  statement and sends the same body; it judges and counts nothing. Better Auth is spared the caller's authentication,
  Express, and the flush of each commit to the disk.
- **verify-p99-at-half-load**: half the median rate of this run's rounds. Requests fall due at even distances whether
  answers come or not, and latency counts from then.
- **verifier-…**: in one process on one core, the server on the other. *cached* takes 1,000 API keys in turn, *jwt-seen* 100
  tokens, *jwt-new* each token once, signed with RS256; of *mixed*, 32 loops at once, nine of ten are of 100 keys and the
  tenth is a key not asked for before.
- **verify-postgres**: the database shares the core of the load.
- **mint-opaque**, **mint-es256**: an answer is sent once its row is durable. oidc-provider and the floor write none.
- **oauth-…**: all on SQLite with \`synchronous=FULL\`, for two scopes, the client by Basic with its secret. oidc-provider has
  its client and its keys in memory, and writes no row of a JWT, whose revocation it could not know; in Better Auth client and
  resource are kept in memory, and there is no Express. *introspect* takes 1,000 opaque tokens in turn, which the peers are told
  the kind of. *code-flow* is of 100 browsers that are signed in and have consented, 500 of ours: authorize, then redeem the code with PKCE
  for an opaque access token, a refresh token and an ID token signed with ES256. Ours is one row of a log more than theirs.
- **verify-10m**: each request another key, drawn uniformly from all.
- **revocation-to-…**: 200 API keys revoked a second, after 8 s of the same; from the event's instant to the arrival at a
  receiver, or at a process that follows the feed. Of three rounds of 5 s the p99 each; for the feed the p99 of all.
- **deliveries…**: 50 endpoints owed 150 revocations at once, and 999 owed 4; the receiver shares the core of the load.
- **verify-p99-while-sweeping**: a third of what it bears in the first minute of sweeping a million M2M tokens.
- **timing-…**: the difference of medians between two kinds of request that are sent in turn by chance, over one
  connection; the noise is the same difference between two halves of one kind, as root mean square over the rounds. The
  ratio is of the two.
`;
}

function renderRow(result: Result): string {
  const { name, value, unit, spread, against, ratio, busy, gate } = result;
  const cells = [
    name,
    value === null ? '–' : `${value} ${unit}`,
    spread?.join(' – ') ?? '–',
    against ?? '–',
    ratio ?? '–',
    busy?.join(' / ') ?? '–',
    gate,
    verdict(result, '**fail**'),
  ];
  return `| ${cells.join(' | ')} |`;
}
