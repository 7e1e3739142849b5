import { sql } from 'drizzle-orm';
import { expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import {
  createApiKey,
  createApiKeyInput,
  updateApiKey,
  updateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { announceExpiries } from '../../../server/domain/expiry.ts';
import type { JobCursor } from '../../../server/domain/jobs.ts';
import { createSecretKey, createSecretKeyInput } from '../../../server/domain/secret-keys.ts';
import {
  callerWith,
  describeOnEachDialect,
  failingAfter,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { expectAsDescribed, expectChained } from '../../support/event-log.ts';

const admin = callerWith('admin');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const newKey = (deps: TestDeps, name: string, days: number) =>
  createApiKey(deps, admin, createApiKeyInput.parse({ name, subject: 'user_1', ttlSeconds: days * 86_400 }));

/** One whole pass; answers where the next begins. */
async function pass(deps: TestDeps, from: JobCursor | null = null) {
  const errors: unknown[] = [];
  let cursor = from;
  for (;;) {
    const step = await announceExpiries(deps, cursor);
    errors.push(...(step.errors ?? []));
    cursor = step.cursor;
    if (step.done) return { cursor, errors };
  }
}

async function announced(deps: TestDeps) {
  const { data } = await listEvents(deps, { after: 0, limit: 500 });
  return data
    .filter(({ type }) => /\.expir/.test(type))
    .map(({ type, objectId, data: { daysLeft } }) => [
      type,
      objectId,
      ...(daysLeft === undefined ? [] : [daysLeft]),
    ]);
}

describeOnEachDialect('announceExpiries()', (dialect: Store['dialect']) => {
  it('announces a key 7 days before, 1 day before and when it has expired, each once, whoever else does so', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newKey(deps, 'ci', 30);
    const { id: secretKeyId } = await createSecretKey(
      deps,
      admin,
      createSecretKeyInput.parse({ name: 'ci', role: 'read', ttlSeconds: 30 * 86_400 }),
    );
    let cursor: JobCursor | null = null;
    for (let hours = 0; hours < 32 * 24; hours += 6) {
      const passes: { cursor: JobCursor | null }[] = await Promise.all([
        pass(deps, cursor),
        pass(deps, cursor),
      ]);
      cursor = passes[0]?.cursor ?? null;
      deps.clock.now += 6 * HOUR;
    }
    expect((await announced(deps)).sort()).toEqual([
      ['api_key.expired', id],
      ['api_key.expiring', id, 1],
      ['api_key.expiring', id, 7],
      ['secret_key.expired', secretKeyId],
      ['secret_key.expiring', secretKeyId, 1],
      ['secret_key.expiring', secretKeyId, 7],
    ]);
    await expectChained(deps);
    await expectAsDescribed(deps);
  });

  it('announces what expired while nothing ran for two hours, and another expiry anew', async () => {
    const deps = await openTestDeps(dialect);
    const slept = await newKey(deps, 'slept', 2);
    const moved = await newKey(deps, 'moved', 20);
    deps.clock.now += 2 * DAY - HOUR;
    const { cursor } = await pass(deps);
    deps.clock.now += 2 * HOUR;
    const after = await pass(deps, cursor);
    expect(await announced(deps)).toEqual([
      ['api_key.expiring', slept.id, 1],
      ['api_key.expired', slept.id],
    ]);
    deps.clock.now += 12 * DAY;
    const then = await pass(deps, after.cursor);
    const expiresAt = deps.clock.now + 3 * DAY;
    await updateApiKey(deps, admin, updateApiKeyInput.parse({ id: moved.id, expiresAt }));
    await pass(deps, then.cursor);
    expect((await announced(deps)).slice(2)).toEqual([
      ['api_key.expiring', moved.id, 6],
      ['api_key.expiring', moved.id, 3],
    ]);
  });

  it('announces many, none that was revoked or was never that far from its end', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 60; i++) await newKey(deps, `short-${i}`, 0.5);
    const { apiKeys } = deps.store.read.tables;
    await newKey(deps, 'revoked', 0.5);
    await deps.store.tx(({ db }) =>
      db.update(apiKeys).set({ revoked_at: deps.now() }).where(sql`${apiKeys.name} = 'revoked'`),
    );
    const { cursor } = await pass(deps);
    expect(await announced(deps)).toEqual([]);
    deps.clock.now += DAY / 2;
    await pass(deps, cursor);
    expect(await announced(deps)).toHaveLength(60);
  });

  it('a key that cannot be announced keeps no other from it, and is tried again from where the pass began', async () => {
    const deps = await openTestDeps(dialect);
    const poisoned = await newKey(deps, 'poisoned', 0.5);
    const other = await newKey(deps, 'other', 0.6);
    const { cursor } = await pass(deps);
    deps.clock.now += DAY;
    const broken = failingAfter(deps, async ({ db, tables: { expiryNotices: n } }) => {
      const [found] = await db.select().from(n).where(sql`${n.owner_id} = ${poisoned.id}`);
      return found !== undefined;
    });
    const failed = await pass(broken, cursor);
    expect(failed.errors).toHaveLength(1);
    expect(await announced(deps)).toEqual([['api_key.expired', other.id]]);
    expect(failed.cursor).toEqual(cursor);
    await pass(deps, failed.cursor);
    expect(await announced(deps)).toContainEqual(['api_key.expired', poisoned.id]);
  });
});
