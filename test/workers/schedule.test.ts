import { eq } from 'drizzle-orm';
import { expect, it, onTestFinished, vi } from 'vitest';
import { createApiKey, createApiKeyInput } from '../../server/domain/api-keys.ts';
import { listEvents } from '../../server/domain/events.ts';
import {
  dueJobs,
  ensureJobs,
  failJob,
  finishJob,
  JOB_NAMES,
  JOBS,
  LEASE_MS,
  listJobs,
  renewLease,
  runJob,
  takeLease,
} from '../../server/domain/jobs.ts';
import { createLogger, type Logger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { newHolder, runJobOnce, startSchedule } from '../../workers/schedule.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';

const admin = callerWith('admin');
const DAY = 86_400_000;

const options = () => ({ logger: createLogger('silent'), metrics: createMetrics(), holder: newHolder() });

async function open(dialect: 'sqlite' | 'postgres') {
  const deps = await openTestDeps(dialect);
  await ensureJobs(deps);
  return deps;
}

const jobOf = async (deps: TestDeps, name: string) => (await listJobs(deps)).find((job) => job.name === name);

describeOnEachDialect('a lease', (dialect) => {
  it('is given to exactly one of those who want it at once, when the job is due and not before', async () => {
    const deps = await open(dialect);
    expect(await dueJobs(deps)).toEqual([]);
    expect(await takeLease(deps, 'expiry-sweep', 'early')).toBeNull();
    deps.clock.now += JOBS['expiry-sweep'].periodMs;
    const taken = await Promise.all(
      Array.from({ length: 8 }, (_, i) => takeLease(deps, 'expiry-sweep', `proc_${i}`)),
    );
    expect(taken.filter((lease) => lease !== null)).toHaveLength(1);
    expect(await dueJobs(deps)).not.toContain('expiry-sweep');
  });

  it('of one who died runs out, and of one who was only slow is not renewed', async () => {
    const deps = await open(dialect);
    const first = await takeLease(deps, 'key-rotation', 'first', { whenever: true });
    if (!first) throw new Error('Not taken');
    await renewLease(deps, first, { at: 1 });
    deps.clock.now += LEASE_MS - 1;
    expect(await takeLease(deps, 'key-rotation', 'second', { whenever: true })).toBeNull();
    deps.clock.now += 1;
    expect(await takeLease(deps, 'key-rotation', 'second', { whenever: true })).toMatchObject({
      cursor: { at: 1 },
    });
    expect(await renewLease(deps, first, { at: 2 })).toBe(false);
  });

  it('and a next run that a clock wrote which was put back since hold nobody off', async () => {
    const deps = await open(dialect);
    deps.clock.now += 40 * DAY;
    await takeLease(deps, 'key-rotation', 'ahead', { whenever: true });
    await runJobOnce(deps, 'expiry-sweep', { ...options(), whenever: true });
    deps.clock.now -= 40 * DAY;
    expect(await dueJobs(deps)).toContain('expiry-sweep');
    expect(await takeLease(deps, 'expiry-sweep', 'now')).not.toBeNull();
    expect(await takeLease(deps, 'key-rotation', 'now', { whenever: true })).not.toBeNull();
  });
});

describeOnEachDialect('a job that fails', (dialect) => {
  it('is tried again, later each time up to its period, and its row says why in a code alone', async () => {
    const deps = await open(dialect);
    const waits = [];
    for (let i = 0; i < 12; i++) {
      const lease = await takeLease(deps, 'key-rotation', 'proc', { whenever: true });
      if (!lease) throw new Error('Not taken');
      await failJob(deps, lease, { cursor: null, error: new Error('msk_secret in a message') });
      waits.push(((await jobOf(deps, 'key-rotation'))?.nextAt ?? 0) - deps.clock.now);
    }
    expect(waits.slice(0, 3)).toEqual([10_000, 20_000, 40_000]);
    expect(waits.at(-1)).toBe(JOBS['key-rotation'].periodMs);
    expect(await jobOf(deps, 'key-rotation')).toMatchObject({ failures: 12, lastError: 'internal' });

    expect(await runJobOnce(deps, 'key-rotation', { ...options(), whenever: true })).toMatchObject({
      outcome: 'succeeded',
    });
    expect(await jobOf(deps, 'key-rotation')).toMatchObject({ failures: 0, lastError: null });
  });
});

describeOnEachDialect('a job that is asked for', (dialect) => {
  it('while it runs is run once more, and asked for again meanwhile not more often', async () => {
    const deps = await open(dialect);
    const lease = await takeLease(deps, 'event-prune', 'proc', { whenever: true });
    if (!lease) throw new Error('Not taken');
    deps.clock.now += 1_000;
    const asked = [];
    for (let i = 0; i < 2; i++) asked.push(await runJob(deps, admin, { name: 'event-prune' }));
    expect(asked.map(({ running, nextAt }) => [running, nextAt])).toEqual(
      Array(2).fill([true, deps.clock.now]),
    );
    const { data } = await listEvents(deps, { after: 0, limit: 500, type: 'job.requested' });
    expect(data).toHaveLength(1);
    deps.clock.now += 1_000;
    await finishJob(deps, lease, null);
    expect(await dueJobs(deps)).toEqual(['event-prune']);

    expect(await runJobOnce(deps, 'event-prune', options())).toMatchObject({ outcome: 'succeeded' });
    expect((await jobOf(deps, 'event-prune'))?.nextAt).toBe(deps.clock.now + JOBS['event-prune'].periodMs);
  });
});

it('that time is doubtful is said once, and once that it is no longer', async () => {
  const deps = await open('sqlite');
  const said: string[] = [];
  const logger = { ...createLogger('silent'), warn: note, info: note } as unknown as Logger;
  function note(text: unknown) {
    said.push(String(text));
  }
  let doubtful = true;
  const schedule = startSchedule({ ...deps, isTimeDoubtful: () => doubtful }, { ...options(), logger });
  await vi.waitFor(() => expect(said).toHaveLength(1), 5_000);
  doubtful = false;
  await vi.waitFor(() => expect(said).toHaveLength(2), 5_000);
  await schedule.close();
  expect(said[0]).toContain('nothing is purged');
  expect(said[1]).toContain('no longer doubtful');
});

describeOnEachDialect('jobs that purge', (dialect) => {
  it('wait while the time is doubtful, and no others do', async () => {
    const deps = await open(dialect);
    const doubtful = { ...deps, isTimeDoubtful: () => true };
    for (const name of JOB_NAMES) {
      const { outcome } = await runJobOnce(doubtful, name, { ...options(), whenever: true });
      expect([name, outcome]).toEqual([name, JOBS[name].purges ? 'postponed' : 'succeeded']);
    }
  });

  it('delete API keys, M2M tokens and idempotency keys whose time is over, and count what they did', async () => {
    const deps = await open(dialect);
    const { apiKeys, idempotencyKeys, m2mTokens } = deps.store.read.tables;
    await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1', ttlSeconds: 1, idempotencyKey: 'once' }),
    );
    const token = (id: string, expiresAt: number) => ({
      id,
      machine_id: 'mch_1',
      format: 'jwt' as const,
      secret_id: 'sec_1',
      generation: 0,
      audience: [],
      scopes: [],
      created_at: 0,
      expires_at: expiresAt,
    });
    deps.clock.now += 100 * DAY;
    const { now } = deps.clock;
    const old = Array.from({ length: 120 }, (_, i) => token(`mt_${i}`, now - DAY - i));
    await deps.store.tx(({ db }) => db.insert(m2mTokens).values([...old, token('mt_kept', now - DAY + 1)]));
    const ran = [];
    for (const name of ['api-key-purge', 'm2m-token-sweep', 'idempotency-prune'] as const)
      ran.push(await runJobOnce(deps, name, { ...options(), whenever: true }));
    expect(ran).toEqual([1, 120, 1].map((count) => ({ outcome: 'succeeded', count })));
    const { db } = deps.store.read;
    expect(await db.select().from(apiKeys)).toEqual([]);
    expect(await db.select().from(idempotencyKeys)).toEqual([]);
    expect(await db.select({ id: m2mTokens.id }).from(m2mTokens)).toEqual([{ id: 'mt_kept' }]);
  });
});

describeOnEachDialect('secret-rotation', (dialect) => {
  it('run by several schedules at once tells once, and goes on where one was interrupted', async () => {
    const deps = await open(dialect);
    const rotation = { periodSeconds: 86_400 };
    for (let i = 0; i < 60; i++)
      await createApiKey(
        deps,
        admin,
        createApiKeyInput.parse({ name: `key-${i}`, subject: 'user_1', rotation }),
      );
    deps.clock.now += DAY;
    const dying = { ...options(), signal: AbortSignal.abort(), whenever: true };
    expect(await runJobOnce(deps, 'secret-rotation', dying)).toEqual({ outcome: 'interrupted', count: 0 });
    const runs = await Promise.all(
      [1, 2, 3].map(() => runJobOnce(deps, 'secret-rotation', { ...options(), whenever: true })),
    );
    expect(runs.filter(({ outcome }) => outcome === 'succeeded')).toEqual([
      { outcome: 'succeeded', count: 60 },
    ]);
    const { data } = await listEvents(deps, { after: 0, limit: 500, type: 'api_key.rotation_due' });
    expect(new Set(data.map(({ objectId }) => objectId)).size).toBe(60);
    expect(data).toHaveLength(60);
  });
});

describeOnEachDialect('delivery-prune', (dialect) => {
  it('deletes what ended over 30 days ago with its attempts, what is owed to nobody, and nothing that is owed or was sent again', async () => {
    const deps = await open(dialect);
    const { deliveries, deliveryAttempts } = deps.store.read.tables;
    const { now } = deps.clock;
    const row = (
      id: string,
      state: 'pending' | 'delivered' | 'dead',
      createdAt: number,
      nextAt = createdAt,
    ) => ({
      id,
      event_seq: 1,
      endpoint_id: id,
      state,
      priority: 1,
      attempt: 1,
      next_at: nextAt,
      created_at: createdAt,
    });
    const old = now - 31 * DAY;
    const many = Array.from({ length: 150 }, (_, i) => row(`dlv_pending_${i}`, 'pending', old));
    const orphans = Array.from({ length: 1_200 }, (_, i) => ({
      ...row(`dlv_orphan_${i}`, 'pending', now),
      event_seq: i,
      endpoint_id: `ep_deleted_${i % 2}`,
    }));
    await deps.store.tx(async ({ db, tables: { webhookEndpoints } }) => {
      await db.insert(webhookEndpoints).values(
        many.map(({ endpoint_id: id }) => ({
          id,
          url: 'https://example.com',
          event_types: [],
          enabled: false,
          sealed_secret: Buffer.alloc(0),
          created_seq: 0,
          created_at: now,
          updated_at: now,
        })),
      );
      await db.insert(deliveries).values(orphans);
      await db
        .insert(deliveries)
        .values([
          ...many,
          row('dlv_done', 'delivered', old + 1),
          row('dlv_dead', 'dead', old + 1),
          row('dlv_again', 'delivered', old + 1, now - DAY),
          row('dlv_new', 'delivered', now - DAY),
        ]);
      await db.insert(deliveryAttempts).values([
        { delivery_id: 'dlv_done', attempt: 1, began_at: old, ended_at: now },
        { delivery_id: 'dlv_pending_0', attempt: 1, began_at: old, ended_at: old },
        { delivery_id: 'dlv_pending_0', attempt: 2, began_at: now, ended_at: now },
      ]);
    });
    expect(await runJobOnce(deps, 'delivery-prune', { ...options(), whenever: true })).toEqual({
      outcome: 'succeeded',
      count: 1_203,
    });
    const ended = await deps.store.read.db.select().from(deliveries).where(eq(deliveries.state, 'delivered'));
    expect(ended.map(({ id }) => id).sort()).toEqual(['dlv_again', 'dlv_new']);
    expect(await deps.store.read.db.$count(deliveries)).toBe(152);
    expect(await deps.store.read.db.select().from(deliveryAttempts)).toMatchObject([{ attempt: 2 }]);
  });
});

describeOnEachDialect('startSchedule()', (dialect) => {
  it('runs what is due or asked for, in one of several processes', async () => {
    const deps = await open(dialect);
    const schedules = [startSchedule(deps, options()), startSchedule(deps, options())];
    onTestFinished(async () => {
      await Promise.all(schedules.map((schedule) => schedule.close()));
    });
    await runJob(deps, admin, { name: 'audit-checkpoint' });
    await vi.waitFor(async () => {
      expect(await jobOf(deps, 'audit-checkpoint')).toMatchObject({
        running: false,
        lastSucceededAt: deps.now(),
      });
    }, 10_000);
    const types = (await listEvents(deps, { after: 0, limit: 500 })).data.map(({ type }) => type);
    expect(types).toEqual(['installation.created', 'job.requested', 'log.checkpoint']);
  });
});
