import { getTableColumns, sql } from 'drizzle-orm';
import { expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import { OauthError } from '../../../server/domain/oauth-errors.ts';
import { createInteraction } from '../../../server/domain/oauth-interactions.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const HALF_AN_HOUR_MS = 30 * 60_000;

const begin = (deps: TestDeps, address: string) =>
  createInteraction(deps, {
    applicationId: null,
    parameters: {},
    step: 'sign_in',
    browser: 'browser',
    address: () => address,
  });

const outcomeOf = (beginning: Promise<unknown>) =>
  beginning.then(
    () => 'begun',
    (error: unknown) => (error instanceof OauthError ? error.code : Promise.reject(error)),
  );

const TOO_MANY = 'temporarily_unavailable';

/** Of one row makes so many, each of another network. */
const multiply = ({ store }: TestDeps, count: number) =>
  store.tx(async ({ db, tables: { oauthInteractions: i } }) => {
    for (let rows = 1, round = 0; rows < count; rows = Math.min(count, rows * 2), round++) {
      const suffix = sql.raw(`'${String.fromCodePoint(97 + round)}'`);
      const others = { id: sql`${i.id} || ${suffix}`, network: sql`${i.network} || ${suffix}` };
      const copies = db.select({ ...getTableColumns(i), ...others }).from(i);
      await db.insert(i).select(copies.limit(Math.min(rows, count - rows)) as never);
    }
  });

describeOnEachDialect('interactions that wait', (dialect) => {
  it('are at most 200 of one network, and none of those that have expired', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 200; i++) await begin(deps, '192.0.2.1');
    expect(await outcomeOf(begin(deps, '192.0.2.1'))).toBe(TOO_MANY);
    expect(await outcomeOf(begin(deps, '192.0.2.2'))).toBe('begun');
    deps.clock.now += HALF_AN_HOUR_MS;
    expect(await outcomeOf(begin(deps, '192.0.2.1'))).toBe('begun');
  });

  it('are at most 100,000 in all, counted without the writer, and none of those that have expired', {
    timeout: 120_000,
  }, async () => {
    const deps = await openTestDeps(dialect);
    await begin(deps, '192.0.2.1');
    await multiply(deps, 100_000);
    // What was counted a moment ago is believed for a second.
    expect(await outcomeOf(begin(deps, '192.0.2.2'))).toBe('begun');
    deps.clock.now += 1_000;
    const tx: Store['tx'] = () => Promise.reject(new Error('The writer was taken'));
    expect(await outcomeOf(begin({ ...deps, store: { ...deps.store, tx } }, '192.0.2.2'))).toBe(TOO_MANY);
    expect(await outcomeOf(begin(deps, '192.0.2.2'))).toBe(TOO_MANY);
    deps.clock.now += HALF_AN_HOUR_MS;
    expect(await outcomeOf(begin(deps, '192.0.2.2'))).toBe('begun');
  });
});
