import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import type { Principal } from '../../../server/deps.ts';
import {
  beginSession,
  createSignInLink,
  deleteExpiredSignIns,
  endSession,
  findSession,
  IDLE_MS,
  LINK_MS,
  type listOperatorSessions,
  SESSION_MS,
  SESSIONS_MAX,
} from '../../../server/domain/operator-sessions.ts';
import { CountersignError } from '../../../server/errors.ts';
import { call } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

/** What a call was refused with, or that it was not. */
const outcomeOf = (calling: Promise<unknown>): Promise<string> =>
  calling.then(
    () => 'ok',
    (error: unknown) => (error instanceof CountersignError ? error.code : Promise.reject(error)),
  );

const HOME = () => '192.0.2.1';

type Open = TestDeps & { adminKey: string };

const newKey = (deps: Open, more: object = {}) =>
  call(deps, deps.adminKey, 'secretKeys.create', { name: 'operator', role: 'read', ...more }) as Promise<{
    id: string;
    secret: string;
  }>;

const principalOf = (id: string): Principal => ({ kind: 'secret_key', id, role: 'read' });

async function linkOf(deps: Open, id: string): Promise<string> {
  const { url } = await createSignInLink(deps, principalOf(id));
  return new URLSearchParams(new URL(url).hash.slice(1)).get('link') ?? '';
}

const signIn = (deps: Open, secretKey: string) => beginSession(deps, { secretKey }, HOME);

describeOnEachDialect('sessions of operators', (dialect) => {
  it('beginSession() takes a secret key, and answers a session with its role and no other', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newKey(deps);
    const { value, session } = await signIn(deps, secret);
    expect(session).toEqual({ id: session.id, role: 'read', name: 'operator', secretKeyId: id });
    expect(await findSession(deps, value, HOME)).toEqual({
      session,
      principal: { kind: 'secret_key', id, role: 'read', bySession: true },
    });
    const { read } = deps.store;
    expect(JSON.stringify(await read.db.select().from(read.tables.operatorSessions))).not.toContain(value);
    expect((await signIn(deps, secret)).value).not.toBe(value);
  });

  it('beginSession() refuses what is no live secret key', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newKey(deps);
    const machine = (await call(deps, deps.adminKey, 'machines.create', { name: 'm' })) as { secret: string };
    await call(deps, deps.adminKey, 'secretKeys.revoke', { id });
    for (const value of [secret, machine.secret, 'sk_nothing'])
      expect(await outcomeOf(signIn(deps, value))).toBe('unauthenticated');
  });

  it('a link signs in once, within its time', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newKey(deps);
    const link = await linkOf(deps, id);
    const both = await Promise.all([1, 2].map(() => outcomeOf(beginSession(deps, { link }, HOME))));
    expect(both.sort()).toEqual(['ok', 'unauthenticated']);
    const late = await linkOf(deps, id);
    deps.clock.now += LINK_MS;
    expect(await outcomeOf(beginSession(deps, { link: late }, HOME))).toBe('unauthenticated');
  });

  it('a session ends with its key: revoked, expired, rotated as compromised, or used from elsewhere', async () => {
    const deps = await openTestDeps(dialect);
    const ends: ((id: string) => unknown)[] = [
      (id) => call(deps, deps.adminKey, 'secretKeys.revoke', { id }),
      (id) => call(deps, deps.adminKey, 'secretKeys.rotate', { id, compromised: true }),
      () => {
        deps.clock.now += 3_600_000;
      },
    ];
    for (const end of ends) {
      const { id, secret } = await newKey(deps, { ttlSeconds: 3_600, allowedCidrs: ['192.0.2.0/24'] });
      const { value } = await signIn(deps, secret);
      const link = await linkOf(deps, id);
      expect(await findSession(deps, value, HOME)).not.toBeNull();
      expect(await findSession(deps, value, () => '198.51.100.1')).toBeNull();
      await end(id);
      expect(await findSession(deps, value, HOME)).toBeNull();
      expect(await outcomeOf(beginSession(deps, { link }, HOME))).toBe('unauthenticated');
    }
  });

  it('a session ends by itself: unused for 12 h, and after 7 days in any case', async () => {
    const deps = await openTestDeps(dialect);
    const { secret } = await newKey(deps);
    const { value } = await signIn(deps, secret);
    const idle = (await signIn(deps, secret)).value;
    const began = deps.clock.now;
    while (deps.clock.now < began + SESSION_MS - IDLE_MS / 2) {
      deps.clock.now += IDLE_MS / 2;
      expect(await findSession(deps, value, HOME)).not.toBeNull();
    }
    expect(await findSession(deps, idle, HOME)).toBeNull();
    deps.clock.now = began + SESSION_MS;
    expect(await findSession(deps, value, HOME)).toBeNull();
  });

  it('endSession() ends one, and a new one beyond the limit ends the oldest', async () => {
    const deps = await openTestDeps(dialect);
    const { secret } = await newKey(deps);
    const values: string[] = [];
    for (let i = 0; i < SESSIONS_MAX + 1; i++) {
      deps.clock.now += 61_000;
      values.push((await signIn(deps, secret)).value);
    }
    const [oldest = '', next = ''] = values;
    expect(await findSession(deps, oldest, HOME)).toBeNull();
    expect(await findSession(deps, next, HOME)).not.toBeNull();
    await endSession(deps, next);
    expect(await findSession(deps, next, HOME)).toBeNull();
  });

  it('listOperatorSessions() shows those that may be used, the newest first; one that is ended is signed out', async () => {
    const deps = await openTestDeps(dialect);
    const { id: secretKeyId, secret } = await newKey(deps);
    const list = (input: object = {}) =>
      call(deps, deps.adminKey, 'operatorSessions.list', input) as ReturnType<typeof listOperatorSessions>;
    const idle = await signIn(deps, secret);
    deps.clock.now += IDLE_MS;
    const [first, second] = [await signIn(deps, secret), await signIn(deps, deps.adminKey)];
    const { data } = await list();
    expect(data).toHaveLength(2);
    const shown = data.find(({ id }) => id === first.session.id);
    expect(shown).toMatchObject({ secretKeyId, name: 'operator', role: 'read', createdAt: deps.clock.now });
    const [page, rest] = [await list({ limit: 1 }), await list({ limit: 1, offset: 1 })];
    const next = await list({ limit: 1, cursor: page.nextCursor });
    expect([next.data, next.nextCursor]).toEqual([rest.data, null]);
    expect(JSON.stringify(data)).not.toContain(first.value);

    const link = await linkOf(deps, secretKeyId);
    await call(deps, deps.adminKey, 'operatorSessions.end', { id: first.session.id });
    expect(await outcomeOf(beginSession(deps, { link }, HOME))).toBe('unauthenticated');
    expect(await findSession(deps, first.value, HOME)).toBeNull();
    expect((await findSession(deps, second.value, HOME))?.session).toEqual(second.session);
    const again = call(deps, deps.adminKey, 'operatorSessions.end', { id: first.session.id });
    await expect(again).rejects.toThrow('No session has the id');
    expect(await findSession(deps, idle.value, HOME)).toBeNull();
  });

  it('a session makes no link, and so does not outlive itself', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await signIn(deps, deps.adminKey);
    const found = await findSession(deps, value, HOME);
    if (!found) throw new Error('Wanted a session');
    expect(await outcomeOf(createSignInLink(deps, found.principal))).toBe('forbidden');
  });

  it('deleteExpiredSignIns() deletes what has expired, and nothing else', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newKey(deps);
    for (let i = 0; i < 3; i++) await linkOf(deps, id);
    await signIn(deps, secret);
    deps.clock.now += LINK_MS;
    const link = await linkOf(deps, id);
    expect([await deleteExpiredSignIns(deps, 2), await deleteExpiredSignIns(deps, 2)]).toEqual([2, 1]);
    expect(await outcomeOf(beginSession(deps, { link }, HOME))).toBe('ok');
    deps.clock.now += SESSION_MS;
    expect([await deleteExpiredSignIns(deps, 9), await deleteExpiredSignIns(deps, 9)]).toEqual([2, 0]);
  });

  it('a writer to the database cannot make a session another key’s, nor last longer', async () => {
    const deps = await openTestDeps(dialect);
    const [mine, other] = [await newKey(deps), await newKey(deps, { role: 'admin' })];
    const { value } = await signIn(deps, mine.secret);
    const { operatorSessions: s } = deps.store.read.tables;
    const write = (change: object) =>
      deps.store.tx(({ db }) => db.update(s).set(change).where(eq(s.secret_key_id, mine.id)));
    await write({ expires_at: deps.now() + 10 * SESSION_MS });
    expect(await findSession(deps, value, HOME)).toBeNull();
    await write({ secret_key_id: other.id });
    expect(await findSession(deps, value, HOME)).toBeNull();
  });

  it('signing in is limited for a network', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 20; i++) expect(await outcomeOf(signIn(deps, 'sk_nothing'))).toBe('unauthenticated');
    expect(await outcomeOf(signIn(deps, deps.adminKey))).toBe('rate_limited');
    expect(await outcomeOf(beginSession(deps, { secretKey: deps.adminKey }, () => '198.51.100.1'))).toBe(
      'ok',
    );
  });
});
