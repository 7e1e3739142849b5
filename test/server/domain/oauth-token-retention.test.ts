import { expect, it } from 'vitest';
import { sortableId } from '../../../server/crypto/ids.ts';
import { deleteOauthApplication } from '../../../server/domain/oauth-applications.ts';
import type { GrantRow } from '../../../server/domain/oauth-grants.ts';
import { createLogger } from '../../../server/logger.ts';
import { oauthSweep } from '../../../workers/oauth-sweep.ts';
import type { Step } from '../../../workers/schedule.ts';
import { sessionPrune } from '../../../workers/session-prune.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newAccessToken, newApplication, newGrant } from '../../support/oauth-tokens.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const admin = callerWith('admin');
const silent = createLogger('silent');

/** Runs a job to its end; answers how many rows it deleted. */
async function run(deps: TestDeps, job: Step): Promise<number> {
  let deleted = 0;
  let step = await job(deps, null, silent);
  for (; !step.done; step = await job(deps, step.cursor, silent)) deleted += step.count;
  return deleted + step.count;
}

/** A code and a refresh token under a grant, that expire then. */
const newCodeAndRefreshToken = (deps: TestDeps, grant: GrantRow, expires_at: number) =>
  deps.store.tx(async ({ db, tables }) => {
    const row = {
      pepper_version: 1,
      grant_id: grant.id,
      application_id: grant.application_id,
      created_at: deps.clock.now,
      expires_at,
    };
    const ids = { code: sortableId('oac_', deps.clock.now), token: sortableId('ort_', deps.clock.now) };
    await db.insert(tables.oauthCodes).values({
      ...row,
      id: ids.code,
      hash: Buffer.from(ids.code),
      redirect_uri: 'https://notes.example.com/callback',
      redirect_uri_given: true,
    });
    await db
      .insert(tables.oauthRefreshTokens)
      .values({ ...row, id: ids.token, hash: Buffer.from(ids.token), scopes: [] });
  });

describeOnEachDialect('OAuth retention', (dialect) => {
  const TABLES = ['oauthTokens', 'oauthCodes', 'oauthRefreshTokens', 'oauthGrants', 'oauthConsents'] as const;

  const counts = async ({ store: { read } }: TestDeps) => {
    const found: Record<string, number> = {};
    for (const name of TABLES) {
      const t = read.tables[name] as (typeof read.tables)['oauthTokens'];
      found[name] = (await read.db.select({ id: t.id }).from(t)).length;
    }
    return found;
  };

  it('keeps a token, code and refresh token for a day after it expired, and a grant until nothing is left of it', async () => {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    const grant = await newGrant(deps, application);
    const { expiresAt } = await newAccessToken(deps, application, { grant });
    await newAccessToken(deps, application);
    await newCodeAndRefreshToken(deps, grant, expiresAt + HOUR);
    const all = { oauthTokens: 2, oauthCodes: 1, oauthRefreshTokens: 1, oauthGrants: 1, oauthConsents: 0 };
    deps.clock.now = expiresAt + DAY - 1;
    expect(await run(deps, oauthSweep)).toBe(0);
    expect(await counts(deps)).toEqual(all);
    deps.clock.now += 1;
    expect(await run(deps, oauthSweep)).toBe(2);
    expect(await counts(deps)).toEqual({ ...all, oauthTokens: 0 });
    deps.clock.now += HOUR;
    expect(await run(deps, oauthSweep)).toBe(3);
    expect(Object.values(await counts(deps))).toEqual([0, 0, 0, 0, 0]);
  });

  it('lets a grant be that was only just made', async () => {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    await newGrant(deps, application);
    deps.clock.now += DAY - 1;
    expect(await run(deps, oauthSweep)).toBe(0);
    deps.clock.now += 1;
    expect(await run(deps, oauthSweep)).toBe(1);
  });

  it('goes through more than one step holds, and leaves what is live', async () => {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    const live = await newGrant(deps, application);
    for (let i = 0; i < 230; i++) await newGrant(deps, application);
    for (let i = 0; i < 45; i++) await newAccessToken(deps, application);
    deps.clock.now += 2 * DAY;
    await newAccessToken(deps, application, { grant: live });
    expect(await run(deps, oauthSweep)).toBe(275);
    expect(await counts(deps)).toMatchObject({ oauthTokens: 1, oauthGrants: 1 });
  });

  it('forgets consents to an application that is gone', async () => {
    const deps = await openTestDeps(dialect);
    const [kept, gone] = [(await newApplication(deps)).row, (await newApplication(deps, { name: 'B' })).row];
    await deps.store.tx(({ db, tables }) =>
      db.insert(tables.oauthConsents).values(
        [kept, gone].map(({ id }) => ({
          id: sortableId('ocn_', deps.clock.now),
          application_id: id,
          subject: 'user_1',
          terms_hash: Buffer.alloc(32),
          scopes: [],
          created_at: 1,
          updated_at: 1,
        })),
      ),
    );
    await deleteOauthApplication(deps, admin, { id: gone.id });
    expect(await run(deps, oauthSweep)).toBe(1);
    expect(await counts(deps)).toMatchObject({ oauthConsents: 1 });
  });

  it('deletes what people sign in by once it has expired, and nothing before', async () => {
    const deps = await openTestDeps(dialect);
    const { now } = deps.clock;
    const bytes = Buffer.alloc(32);
    await deps.store.tx(async ({ db, tables }) => {
      await db.insert(tables.oauthInteractions).values({
        id: 'int_1',
        application_id: 'oauthapp_1',
        browser_hash: bytes,
        parameters: {},
        step: 'sign_in',
        network: '127.0.0.1',
        created_at: now,
        expires_at: now + 1,
      });
      await db.insert(tables.userSessions).values({
        id: 'uss_1',
        hash: bytes,
        subject: 'user_1',
        source: 'local',
        claims: {},
        organizations: [],
        auth_time: now,
        created_at: now,
        last_seen_at: now,
        expires_at: now + 1,
        mac: bytes,
      });
      await db
        .insert(tables.userInvitations)
        .values({ id: 'inv_1', hash: bytes, created_at: now, expires_at: now + 1, mac: bytes });
      await db.insert(tables.signInFailures).values({ id: 'x', count: 1, expires_at: now + 1 });
      await db.insert(tables.initialAccessTokens).values({
        id: 'iat_1',
        name: 'x',
        hash: bytes,
        uses_left: 1,
        created_at: now,
        expires_at: now + 1,
        mac: bytes,
      });
    });
    expect(await run(deps, sessionPrune)).toBe(0);
    deps.clock.now += 1;
    expect(await run(deps, sessionPrune)).toBe(5);
  });
});
