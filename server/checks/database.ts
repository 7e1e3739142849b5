/** What the doctor looks at in the database. It only reads. */
import { appliedMigrations, schemaVersion } from '../../db/migrations.ts';
import type { Store } from '../../db/store.ts';
import type { Config } from '../config.ts';
import { assertMayOpen, isInstalled, openKeys } from '../domain/installation.ts';
import { readFailingEndpoints } from '../domain/overview.ts';
import { listSigningKeys } from '../domain/signing-keys.ts';
import { readStanding } from '../domain/standing.ts';
import { type Check, ok, problem, type Seen, skipped, warning } from './finding.ts';

export interface AboutDatabase {
  config: Config;
  store: Store;
  /** Null where none was given and no file keeps one. */
  masterKey: Buffer | null;
  now: () => number;
}

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** The clock goes on from the last event, and a token that was minted elsewhere may begin in our future. */
const CLOCK_MS_MAX = 2_000;
/** A retry may take that long without anything being wrong at our end. */
const PENDING_MS_MAX = 10 * MINUTE_MS;
const OVERDUE_MS_MAX = 5 * MINUTE_MS;

/** In an order in which a later one rests on those before. */
export const DATABASE_CHECKS: readonly Check<AboutDatabase>[] = [
  { name: 'database', look: lookAtDatabase },
  { name: 'schema', look: whereInstalled(lookAtSchema) },
  { name: 'master key', look: whereInstalled(lookAtMasterKey) },
  { name: 'clock', look: whereInstalled(lookAtClock) },
  { name: 'signing keys', look: whereInstalled(lookAtSigningKeys) },
  { name: 'jobs', look: whereInstalled(lookAtJobs) },
  { name: 'secrets due', look: whereInstalled(lookAtDueSecrets) },
  { name: 'webhooks', look: whereInstalled(lookAtWebhooks) },
];

function whereInstalled(look: Check<AboutDatabase>['look']): Check<AboutDatabase>['look'] {
  return async (about) =>
    (await isInstalled(about.store)) ? look(about) : skipped('The database was not set up yet');
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

async function lookAtSchema({ store }: AboutDatabase): Promise<Seen> {
  const [applied, known] = [await appliedMigrations(store), schemaVersion()];
  if (applied < known)
    return warning(
      `Version ${applied}, and this binary is ${known}`,
      'The next start of this version migrates it. Back it up first',
    );
  if (applied > known)
    return warning(
      `Version ${applied}, and this binary is ${known}: a newer one is in use beside it`,
      'Update this host too',
    );
  return ok(`version ${applied}`);
}

async function lookAtMasterKey({ store, masterKey }: AboutDatabase): Promise<Seen> {
  if (!masterKey)
    return problem(
      'None is given, and the data directory keeps none',
      'Give the one of this database in COUNTERSIGN_MASTER_KEY_FILE; without it every credential is lost',
    );
  try {
    await assertMayOpen(store, masterKey);
  } catch (error) {
    return problem((error as Error).message, 'Start nothing before that is so: it would be refused');
  }
  const { preparing } = await openKeys(store.read, masterKey);
  if (preparing !== null)
    return problem('A pepper is being retired, and no server starts', 'Run `npm run retire:pepper` again');
  return ok('fits');
}

async function lookAtClock({ store, now }: AboutDatabase): Promise<Seen> {
  const mend = 'Have the clocks of all hosts set by NTP';
  const { eventHead } = store.read.tables;
  const [head] = await store.read.db.select({ at: eventHead.at }).from(eventHead);
  const aheadMs = (head?.at ?? 0) - now();
  if (aheadMs > CLOCK_MS_MAX)
    return problem(`The last event is ${seconds(aheadMs)} in the future of this host's clock`, mend);
  if (store.dialect === 'sqlite') return ok('not behind the last event');
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
  if (!active)
    return problem(
      'None signs',
      'Run `countersign signing-keys create` and `countersign signing-keys activate`',
    );
  const days = Math.floor((now() - (active.activatedAt ?? active.createdAt)) / DAY_MS);
  const found = `'${active.kid}' (${active.alg}) signs since ${days} days`;
  if (days <= config.keyRotationDays + 1) return ok(found);
  return problem(
    `${found}, and was to be rotated after ${config.keyRotationDays}`,
    'See that a server or workers run: the job `key-rotation` does it',
  );
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
  const { oldestPendingMs, pending } = await readStanding({ store, now });
  if (oldestPendingMs > PENDING_MS_MAX)
    return warning(
      `The oldest of ${pending.due + pending.waiting} pending deliveries waits for ${seconds(oldestPendingMs)}`,
      'See that workers run, and what `countersign deliveries list --state pending` says',
    );
  return ok(`${pending.due + pending.waiting} deliveries pending`);
}

const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
