/** What the doctor looks at in the database. It only reads. */
import { existsSync, readFileSync } from 'node:fs';
import { appliedMigrations, schemaVersion } from '../../db/migrations.ts';
import type { Reader } from '../../db/store.ts';
import { type Config, MASTER_KEY_WANTED, parseMasterKey } from '../config.ts';
import { countGivenUp } from '../domain/deliveries.ts';
import {
  assertBearsUs,
  assertMayOpen,
  InstallationError,
  isInstalled,
  latestInstant,
  openKeys,
} from '../domain/installation.ts';
import { readFailingEndpoints } from '../domain/overview.ts';
import { listSigningKeys, PUBLISHED_AHEAD_MS } from '../domain/signing-keys.ts';
import { readStanding } from '../domain/standing.ts';
import { holdsMasterKey, keyFile } from '../key-files.ts';
import { type Check, ok, problem, type Seen, skipped, warning } from './finding.ts';

export interface AboutDatabase {
  config: Config;
  store: Reader;
  now: () => number;
}

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** The clock goes on from where it was, and a token that was minted elsewhere may begin in our future. */
const CLOCK_MS_MAX = 2_000;
/** A retry may take that long without anything being wrong at our end. */
const PENDING_MS_MAX = 10 * MINUTE_MS;
const OVERDUE_MS_MAX = 5 * MINUTE_MS;
/** `key-rotation` runs each hour, and may be late once. */
const LATE_MS_MAX = 2 * 60 * MINUTE_MS;

export const DATABASE_CHECKS: readonly Check<AboutDatabase>[] = [
  { name: 'database', look: lookAtDatabase },
  { name: 'schema', look: whereInstalled(lookAtSchema) },
  { name: 'master key', look: whereBorne(lookAtMasterKey) },
  { name: 'clock', look: whereMigrated(lookAtClock) },
  { name: 'signing keys', look: whereMigrated(lookAtSigningKeys) },
  { name: 'jobs', look: whereMigrated(lookAtJobs) },
  { name: 'secrets due', look: whereMigrated(lookAtDueSecrets) },
  { name: 'webhooks', look: whereMigrated(lookAtWebhooks) },
];

function whereInstalled(look: Check<AboutDatabase>['look']): Check<AboutDatabase>['look'] {
  return async (about) =>
    (await isInstalled(about.store)) ? look(about) : skipped('The database was not set up yet');
}

/** How a master key is checked may have changed for a database that wants a newer binary. */
function whereBorne(look: Check<AboutDatabase>['look']): Check<AboutDatabase>['look'] {
  return whereInstalled(async (about) =>
    (await refusalOf(about)) === null ? look(about) : skipped('The schema comes first'),
  );
}

/** A schema of before lacks columns that this binary asks for. */
function whereMigrated(look: Check<AboutDatabase>['look']): Check<AboutDatabase>['look'] {
  return whereBorne(async (about) =>
    (await appliedMigrations(about.store)) < schemaVersion()
      ? skipped('The schema comes first: it is older than this binary')
      : look(about),
  );
}

/** Why this binary may not open the database, or null where it may. */
async function refusalOf({ store }: AboutDatabase): Promise<string | null> {
  try {
    await assertBearsUs(store);
    return null;
  } catch (error) {
    if (error instanceof InstallationError) return error.message;
    throw error;
  }
}

async function lookAtDatabase({ store }: AboutDatabase): Promise<Seen> {
  const [[version, isStandby] = []] = await store.read.prepare(
    'doctor_database',
    store.dialect === 'postgres'
      ? "SELECT current_setting('server_version'), pg_is_in_recovery()"
      : 'SELECT sqlite_version(), 0',
  )([]);
  const found = `${store.dialect === 'postgres' ? 'PostgreSQL' : 'SQLite'} ${version}`;
  if (isStandby === true)
    return problem(
      `${found}, a standby, on which nothing can be revoked`,
      'Name the primary in DATABASE_URL',
    );
  if (!(await isInstalled(store))) return ok(`${found}, not set up yet: the first start does that`);
  return ok(found);
}

const REFUSED = 'Start nothing before that is so: it would be refused';

async function lookAtSchema(about: AboutDatabase): Promise<Seen> {
  const { store } = about;
  const refusal = await refusalOf(about);
  if (refusal !== null) return problem(refusal, REFUSED);
  const [applied, known] = [await appliedMigrations(store), schemaVersion()];
  if (applied < known)
    return warning(
      `Version ${applied}, and this binary is ${known}`,
      'The next start of this version migrates it. Back it up first, with the version that runs on it',
    );
  if (applied > known)
    return warning(
      `Version ${applied}, and this binary is ${known}: a newer one is in use beside it`,
      'Update this host too',
    );
  return ok(`version ${applied}`);
}

async function lookAtMasterKey({ config, store }: AboutDatabase): Promise<Seen> {
  if (config.masterKey) return lookAtFit(store, config.masterKey);
  const mend =
    'Give the one of this database in COUNTERSIGN_MASTER_KEY_FILE; without it every credential is lost';
  if (await holdsMasterKey(store, keyFile(config.dataDir, 'master-key.new')))
    return warning(
      'That of a rotation that was cut off fits',
      'Run `npm run rotate:master-key` again, or start a server: either puts it in its place',
    );
  const path = keyFile(config.dataDir, 'master-key');
  if (!existsSync(path)) return problem('None is given, and the data directory keeps none', mend);
  const text = readFileSync(path, 'utf8').trim();
  const masterKey = parseMasterKey(text);
  if (masterKey) return lookAtFit(store, masterKey);
  return problem(
    `'${path}' is damaged: wanted ${MASTER_KEY_WANTED}, found text of ${text.length} characters`,
    mend,
  );
}

async function lookAtFit(store: Reader, masterKey: Buffer): Promise<Seen> {
  try {
    await assertMayOpen(store, masterKey);
  } catch (error) {
    if (error instanceof InstallationError) return problem(error.message, REFUSED);
    throw error;
  }
  const { preparing } = await openKeys(store.read, masterKey);
  if (preparing !== null)
    return problem('A pepper is being retired, and no server starts', 'Run `npm run retire:pepper` again');
  return ok('fits');
}

async function lookAtClock({ store, now }: AboutDatabase): Promise<Seen> {
  const mend = 'Have the clocks of all hosts set by NTP';
  const aheadMs = (await latestInstant(store)) - now();
  if (aheadMs > CLOCK_MS_MAX)
    return problem(
      `Servers were ${seconds(aheadMs)} in the future of this host's clock, and go on from there`,
      mend,
    );
  if (store.dialect === 'sqlite') return ok('not behind the time of servers');
  const [[theirs] = []] = await store.read.prepare(
    'doctor_clock',
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8',
  )([]);
  const apartMs = Math.abs(Number(theirs) - now());
  if (apartMs > CLOCK_MS_MAX)
    return warning(`${seconds(apartMs)} apart from the clock of the database`, mend);
  return ok(`${Math.round(apartMs)} ms apart from the clock of the database`);
}

async function lookAtSigningKeys({ config, store, now }: AboutDatabase): Promise<Seen> {
  const keys = await listSigningKeys({ store });
  const active = keys.find(({ state }) => state === 'active');
  const next = keys.find(({ state }) => state === 'upcoming');
  if (!active)
    return problem(
      'None signs',
      'Run `countersign signing-keys create` and `countersign signing-keys activate`',
    );
  const signsMs = now() - (active.activatedAt ?? active.createdAt);
  const found = `'${active.kid}' (${active.alg}) signs since ${Math.floor(signsMs / DAY_MS)} days`;
  const mend = 'See that a server or workers run: the job `key-rotation` does it';
  const leftMs = config.keyRotationDays * DAY_MS - signsMs;
  if (leftMs < -PUBLISHED_AHEAD_MS - LATE_MS_MAX)
    return problem(`${found}, and was to be rotated after ${config.keyRotationDays}`, mend);
  if (leftMs < PUBLISHED_AHEAD_MS - LATE_MS_MAX && !next)
    return problem(`${found}, and the next one, which is due soon, is not published`, mend);
  return ok(next ? `${found}; '${next.kid}' is published as the next` : found);
}

async function lookAtJobs({ store, now }: AboutDatabase): Promise<Seen> {
  const { jobs } = await readStanding({ store, now });
  const start = 'Start a server, or workers beside servers that run with --server-only';
  if (jobs.length === 0) return warning('No workers were ever started', start);
  const failing = jobs.filter(({ failures }) => failures > 0);
  if (failing.length > 0)
    return problem(
      `Failing: ${failing.map(({ name, failures }) => `${name} (${failures} times in a row)`).join(', ')}`,
      'The log of the process that ran it says why; `npm run job -- NAME` runs it here',
    );
  const overdue = jobs.filter(({ overdueMs }) => overdueMs > OVERDUE_MS_MAX);
  if (overdue.length > 0) return problem(`Overdue: ${overdue.map(({ name }) => name).join(', ')}`, start);
  return ok(`${jobs.length}, none behind`);
}

async function lookAtDueSecrets({ store, now }: AboutDatabase): Promise<Seen> {
  const { overdueSecrets } = await readStanding({ store, now });
  if (overdueSecrets === 0) return ok('none');
  return warning(
    `${overdueSecrets} are older than their policies allow`,
    'Rotate them: `countersign machines list`, `countersign api-keys list`',
  );
}

async function lookAtWebhooks({ store, now }: AboutDatabase): Promise<Seen> {
  const troubled = await readFailingEndpoints({ store });
  const [first] = troubled;
  if (first)
    return problem(
      `${troubled.length} fail, or were disabled because they did, such as '${first.id}' (${first.url})`,
      'Mend the receiver, then `countersign webhook-endpoints enable` and `countersign deliveries replay`',
    );
  const givenUp = await countGivenUp({ store }, now() - DAY_MS);
  if (givenUp > 0)
    return warning(
      `${givenUp} deliveries were given up within a day`,
      'See why, `countersign deliveries list --state dead`, and then `countersign deliveries replay`',
    );
  const { oldestPendingMs, pending } = await readStanding({ store, now });
  if (oldestPendingMs > PENDING_MS_MAX)
    return warning(
      `The oldest of ${pending.due + pending.waiting} pending deliveries waits for ${seconds(oldestPendingMs)}`,
      'See that workers run, and what `countersign deliveries list --state pending` says',
    );
  return ok(`${pending.due + pending.waiting} deliveries pending`);
}

const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
