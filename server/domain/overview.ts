/** What an operator looks at first: what is verified, what there is, what expires, and what is behind. */
import { and, asc, desc, eq, gt, inArray, isNotNull, isNull, lte, sql } from 'drizzle-orm';
import type { Deps, ReadingDeps } from '../deps.ts';
import { API_KEY_STATES, type ApiKeyState, stateOfApiKey } from './api-keys.ts';
import type { VerifiedMinute } from './recent-verifications.ts';
import { hasExpired } from './secrets.ts';
import { readStanding } from './standing.ts';

export interface Overview {
  /** Of the process that answers, in its last hour: others have their own. */
  verifications: VerifiedMinute[];
  /** Of each kind the newest 10,000 are counted; where there are more, `isCapped` says so. */
  credentials: {
    apiKeys: Counted<ApiKeyState>;
    machines: Counted<'enabled' | 'disabled'>;
    secretKeys: Counted<'live' | 'expired' | 'revoked'>;
    /** Those that have not expired, revoked ones included; to the hour. */
    unexpiredM2mTokens: number;
  };
  /** Within seven days, the soonest first, ten at most. */
  expiring: {
    kind: 'api_key' | 'secret_key';
    id: string;
    name: string;
    subject: string | null;
    expiresAt: number;
  }[];
  signing: { kid: string; activatedAt: number; rotatesAt: number } | null;
  /** Endpoints that fail, or were disabled because they did; ten at most. */
  failingEndpoints: { id: string; url: string; enabled: boolean; failingSince: number | null }[];
  /** Deliveries of webhooks: due now, and waiting for their next attempt; at most 10,000. */
  pending: { due: number; waiting: number };
  oldestPendingMs: number;
  /** Secrets that are overdue for rotation, at most 10,000. */
  overdueSecrets: number;
  /** Jobs whose last run failed, or that are overdue by more than five minutes. */
  troubledJobs: { name: string; failures: number; overdueMs: number }[];
}

export interface Counted<State extends string> {
  states: Record<State, number>;
  isCapped: boolean;
}

/** Counting more would hold everybody up (design.md, lists). */
const COUNTED_MAX = 10_000;
const SHOWN_MAX = 10;
const WEEK_MS = 7 * 24 * 3_600_000;
const HOUR_MS = 3_600_000;
const OVERDUE_MS = 5 * 60_000;

export async function getOverview(deps: Deps): Promise<Overview> {
  const { jobs, ...behind } = await readStanding(deps);
  return {
    verifications: deps.recentVerifications.read(deps.now()),
    credentials: {
      apiKeys: await countApiKeyStates(deps),
      machines: await countMachines(deps),
      secretKeys: await countSecretKeys(deps),
      unexpiredM2mTokens: await countM2mTokens(deps),
    },
    expiring: await readExpiring(deps),
    signing: await readSigning(deps),
    failingEndpoints: await readFailingEndpoints(deps),
    ...behind,
    troubledJobs: jobs
      .filter(({ failures, overdueMs }) => failures > 0 || overdueMs > OVERDUE_MS)
      .map(({ name, failures, overdueMs }) => ({ name, failures, overdueMs })),
  };
}

/** How many there are of each state. One row more than is counted says that there are more. */
function counted<State extends string>(states: readonly State[], found: readonly State[]): Counted<State> {
  const counts = Object.fromEntries(states.map((state) => [state, 0])) as Record<State, number>;
  for (const state of found.slice(0, COUNTED_MAX)) counts[state] += 1;
  return { states: counts, isCapped: found.length > COUNTED_MAX };
}

async function countApiKeyStates({ store: { read }, now }: Deps): Promise<Counted<ApiKeyState>> {
  const { apiKeys: k } = read.tables;
  const rows = await read.db
    .select({ enabled: k.enabled, revoked_at: k.revoked_at, expires_at: k.expires_at })
    .from(k)
    .orderBy(desc(k.created_at), desc(k.id))
    .limit(COUNTED_MAX + 1);
  return counted(
    API_KEY_STATES,
    rows.map((row) => stateOfApiKey(row, now())),
  );
}

async function countMachines({ store: { read } }: Deps): Promise<Counted<'enabled' | 'disabled'>> {
  const { machines: m } = read.tables;
  const rows = await read.db
    .select({ enabled: m.enabled })
    .from(m)
    .orderBy(desc(m.created_at), desc(m.id))
    .limit(COUNTED_MAX + 1);
  return counted(
    ['enabled', 'disabled'],
    rows.map(({ enabled }) => (enabled ? 'enabled' : 'disabled')),
  );
}

async function countSecretKeys({
  store: { read },
  now,
}: Deps): Promise<Counted<'live' | 'expired' | 'revoked'>> {
  const { secretKeys: k } = read.tables;
  const rows = await read.db
    .select({ revokedAt: k.revoked_at, expiresAt: k.expires_at })
    .from(k)
    .orderBy(desc(k.created_at), desc(k.id))
    .limit(COUNTED_MAX + 1);
  return counted(
    ['live', 'expired', 'revoked'],
    rows.map(({ revokedAt, expiresAt }) => {
      if (revokedAt !== null) return 'revoked';
      return hasExpired(expiresAt, now()) ? 'expired' : 'live';
    }),
  );
}

async function countM2mTokens({ store: { read }, now }: Deps): Promise<number> {
  const { m2mTokenCounts: c } = read.tables;
  const [row] = await read.db
    .select({ count: sql`coalesce(sum(${c.count}), 0)`.mapWith(Number) })
    .from(c)
    .where(gt(c.expires_hour, Math.floor(now() / HOUR_MS)));
  return row?.count ?? 0;
}

async function readExpiring({ store: { read }, now }: Deps): Promise<Overview['expiring']> {
  const { apiKeys: k, secretKeys: s } = read.tables;
  const until = now() + WEEK_MS;
  const apiKeys = await read.db
    .select({ id: k.id, name: k.name, subject: k.subject, expiresAt: k.expires_at })
    .from(k)
    .where(
      and(isNotNull(k.expires_at), gt(k.expires_at, now()), lte(k.expires_at, until), isNull(k.revoked_at)),
    )
    .orderBy(asc(k.expires_at), asc(k.id))
    .limit(SHOWN_MAX);
  const secretKeys = await read.db
    .select({ id: s.id, name: s.name, expiresAt: s.expires_at })
    .from(s)
    .where(
      and(isNotNull(s.expires_at), gt(s.expires_at, now()), lte(s.expires_at, until), isNull(s.revoked_at)),
    )
    .orderBy(asc(s.expires_at), asc(s.id))
    .limit(SHOWN_MAX);
  return [
    ...apiKeys.map((key) => ({ ...key, kind: 'api_key' as const, expiresAt: key.expiresAt ?? 0 })),
    ...secretKeys.map((key) => ({
      ...key,
      kind: 'secret_key' as const,
      subject: null,
      expiresAt: key.expiresAt ?? 0,
    })),
  ]
    .sort((one, other) => one.expiresAt - other.expiresAt)
    .slice(0, SHOWN_MAX);
}

async function readSigning({ store: { read }, keyRotationMs }: Deps): Promise<Overview['signing']> {
  const { signingKeys: k } = read.tables;
  const [active] = await read.db
    .select({ kid: k.kid, activatedAt: k.activated_at })
    .from(k)
    .where(eq(k.state, 'active'));
  if (!active || active.activatedAt === null) return null;
  const { kid, activatedAt } = active;
  return { kid, activatedAt, rotatesAt: activatedAt + keyRotationMs };
}

/** Those that fail, or were disabled because they did: the newest. */
export async function readFailingEndpoints({
  store: { read },
}: Pick<ReadingDeps, 'store'>): Promise<Overview['failingEndpoints']> {
  const { webhookEndpoints: w } = read.tables;
  const fails = sql`${isNotNull(w.failing_since)} or ${inArray(w.disabled_reason, ['gone', 'failing'])}`;
  return read.db
    .select({ id: w.id, url: w.url, enabled: w.enabled, failingSince: w.failing_since })
    .from(w)
    .where(fails)
    .orderBy(desc(w.created_at), desc(w.id))
    .limit(SHOWN_MAX);
}
