import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import type { Caller } from '../../../server/deps.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { signInLocally } from '../../../server/domain/local-sign-in.ts';
import { insertGrant } from '../../../server/domain/oauth-grants.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import {
  acceptInvitation,
  findInvitation,
  inviteUser,
  inviteUserInput,
  listUserInvitations,
} from '../../../server/domain/user-invitations.ts';
import { acceptPassword, whileFewHash } from '../../../server/domain/user-passwords.ts';
import {
  beginUserSession,
  endUserSession,
  endUserSessionById,
  findUserSession,
  HANDED_OFF,
  IDLE_MS,
  listUserSessions,
  SESSION_MS,
  SESSIONS_MAX,
} from '../../../server/domain/user-sessions.ts';
import {
  deleteUser,
  isUserSubject,
  listUsers,
  mayBeSignedIn,
  readUser,
  setUserEnabled,
  signInNameOf,
  updateUser,
} from '../../../server/domain/users.ts';
import { CountersignError } from '../../../server/errors.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { newUser, newUserSession, PASSWORD } from '../../support/users.ts';

const admin = callerWith('admin');
const PAGE = { limit: 50, offset: 0 };

/** What a call was refused with, or that it was not. */
const outcomeOf = (calling: Promise<unknown>): Promise<string> =>
  calling.then(
    () => 'ok',
    (error: unknown) => (error instanceof CountersignError ? error.code : Promise.reject(error)),
  );

async function invite(deps: TestDeps, input: object = {}): Promise<string> {
  const { link = '' } = await inviteUser(deps, admin, inviteUserInput.parse(input));
  return new URL(link).searchParams.get('value') ?? '';
}

const accept = (deps: TestDeps, value: string, signInName = 'ada', password = PASSWORD) =>
  acceptInvitation(deps, 'req_1', { value, signInName, password }, anywhere);

const signIn = (deps: TestDeps, signInName: string, password: string, from = anywhere) =>
  signInLocally(deps, { signInName, password }, from);

describe('passwords', () => {
  it('acceptPassword() wants twelve characters, takes any, and reads them alike however they were typed', () => {
    expect(acceptPassword('correct horse', [])).toBe('correct horse');
    expect(acceptPassword('пароль из слов', [])).toBe('пароль из слов');
    expect(acceptPassword('cafe\u0301 au lait!', [])).toBe('caf\u00e9 au lait!');
    for (const refused of ['short words', 'x'.repeat(300), `a\u0000${'bcdefghij'.repeat(2)}`])
      expect(() => acceptPassword(refused, [])).toThrow('Wanted another password');
  });

  it('acceptPassword() refuses what is guessed first, whatever is put around it', () => {
    for (const refused of [
      'password1234',
      'PassWord!!!!2026',
      'qwertyuiop123',
      '123456789012',
      'abcabcabcabc',
    ])
      expect(() => acceptPassword(refused, []), refused).toThrow('Wanted another password');
    expect(() => acceptPassword('ada.lovelace 1815', ['ada.lovelace'])).toThrow('without your name');
  });

  it('at most two are hashed at once: the third is told to wait, and nobody once they are done', async () => {
    let finish = () => {};
    const waiting = new Promise<void>((done) => {
      finish = done;
    });
    const two = [whileFewHash(() => waiting), whileFewHash(() => waiting)];
    expect(await outcomeOf(whileFewHash(async () => {}))).toBe('rate_limited');
    finish();
    await Promise.all(two);
    await expect(whileFewHash(() => Promise.reject(new Error('failed')))).rejects.toThrow('failed');
    expect(await outcomeOf(whileFewHash(async () => {}))).toBe('ok');
  });
});

describe('names', () => {
  it('a name to sign in with is ASCII in one form, so that no two look alike', () => {
    expect(signInNameOf(' Ada@Example.com ')).toBe('ada@example.com');
    for (const refused of ['аdа', 'ada lovelace', 'ab', 'x'.repeat(200), '<ada>', '@ada', ''])
      expect(signInNameOf(refused)).toBeNull();
  });

  it('no subject of a user begins as a machine, an organization, an application or a credential does', () => {
    for (const begin of [
      'mch_',
      'org_',
      'oauthapp_',
      'sk_',
      'msk_',
      'ak_',
      'mt_',
      'oat_',
      'ort_',
      'uss_',
      'pnl_',
    ])
      expect(isUserSubject(`${begin}1`)).toBe(false);
    for (const subject of ['user_1', 'auth0|5f7', 'ada']) expect(isUserSubject(subject)).toBe(true);
  });
});

describeOnEachDialect('invitations', (dialect) => {
  it('whoever has the link chooses a name and a password, once', async () => {
    const deps = await openTestDeps(dialect);
    const value = await invite(deps, { email: 'ada@example.com', name: 'Ada' });
    expect(await findInvitation(deps, value, anywhere)).toEqual({
      email: 'ada@example.com',
      name: 'Ada',
      signInName: null,
    });
    const user = await accept(deps, value, 'Ada');
    expect(user).toMatchObject({ source: 'local', sourceSubject: 'ada', email: 'ada@example.com' });
    expect(user.emailVerified).toBe(false);
    expect(await outcomeOf(accept(deps, value, 'other'))).toBe('not_found');
    const { data } = await listEvents(deps, { after: 0, limit: 50 });
    const created = data.find(({ type }) => type === 'user.created');
    expect(created).toMatchObject({ actor: { kind: 'user', id: user.id }, objectId: user.id });
    expect((await signIn(deps, 'ADA', PASSWORD)).subject).toBe(user.id);
  });

  it('of two who accept it at once, one becomes the user', async () => {
    const deps = await openTestDeps(dialect);
    const value = await invite(deps);
    const both = await Promise.all(['ada', 'bob'].map((name) => outcomeOf(accept(deps, value, name))));
    expect(both.sort()).toEqual(['not_found', 'ok']);
    expect((await listUsers(deps, PAGE)).data).toHaveLength(1);
  });

  it('a link that cannot be used as asked is still good', async () => {
    const deps = await openTestDeps(dialect);
    await newUser(deps, 'ada');
    const value = await invite(deps, { email: 'bob@example.com' });
    expect(await outcomeOf(accept(deps, value, 'ada'))).toBe('name_taken');
    expect(await outcomeOf(accept(deps, value, 'x'))).toBe('invalid_input');
    expect(await outcomeOf(accept(deps, value, 'bob', 'password1234'))).toBe('invalid_input');
    // An address says who somebody is: it has to be the one that was invited.
    expect(await outcomeOf(accept(deps, value, 'boss@example.com'))).toBe('invalid_input');
    expect(await outcomeOf(accept(deps, value, 'bob@example.com'))).toBe('ok');
  });

  it('a link ends with its time, when it is taken back, and when a writer to the database changes it', async () => {
    const deps = await openTestDeps(dialect);
    const late = await invite(deps, { ttlSeconds: 600 });
    const forged = await invite(deps);
    const user = await newUser(deps, 'victim');
    await deps.store.tx(({ db, tables: { userInvitations: i } }) =>
      db
        .update(i)
        .set({ user_id: user.id })
        .where(eq(i.hash, deps.keyring.hash(forged))),
    );
    expect(await findInvitation(deps, forged, anywhere)).toBeNull();
    expect(await findInvitation(deps, late, anywhere)).not.toBeNull();
    deps.clock.now += 600_000;
    expect(await findInvitation(deps, late, anywhere)).toBeNull();
    expect(await outcomeOf(accept(deps, late))).toBe('not_found');
  });

  it('a link for a user sets another password, and signs out whoever was signed in', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps, 'ada', { withPassword: true });
    const { value: session } = await newUserSession(deps, user);
    const other = await invite(deps, { userId: user.id });
    const value = await invite(deps, { userId: user.id });
    await accept(deps, value, 'ignored', 'another long phrase');
    expect(await findUserSession(deps, session)).toBeNull();
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD))).toBe('unauthenticated');
    expect((await signIn(deps, 'ada', 'another long phrase')).subject).toBe(user.id);
    // Whoever has another link to the account has no way back in.
    expect(await outcomeOf(accept(deps, other, 'ada', 'yet another phrase'))).toBe('not_found');
  });

  it('nothing of what is handed out is in the database, and no event has it', async () => {
    const deps = await openTestDeps(dialect);
    const value = await invite(deps, { email: 'ada@example.com' });
    const { read } = deps.store;
    expect(JSON.stringify(await read.db.select().from(read.tables.userInvitations))).not.toContain(value);
    await accept(deps, value);
    const [row] = await read.db.select().from(read.tables.users);
    expect(row?.password_hash?.toString()).not.toContain('scrypt');
    const log = JSON.stringify(await listEvents(deps, { after: 0, limit: 50 }));
    for (const secret of [value, PASSWORD, 'ada@example.com']) expect(log).not.toContain(secret);
    expect(await listUserInvitations(deps, PAGE)).toEqual({ data: [], nextCursor: null });
  });
});

describeOnEachDialect('signing in to a local account', (dialect) => {
  it('a name that nobody has, a wrong password, and a user who is disabled are told alike', async () => {
    const deps = await openTestDeps(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const bob = await newUser(deps, 'bob', { withPassword: true });
    await setUserEnabled(deps, admin, { id: bob.id }, false);
    const messages = await Promise.all(
      [
        ['ada', 'wrong password'],
        ['nobody', PASSWORD],
      ].map(([name = '', password = '']) =>
        signIn(deps, name, password).catch((error: Error) => error.message),
      ),
    );
    messages.push(await signIn(deps, 'bob', PASSWORD).catch((error: Error) => error.message));
    messages.push(await signIn(deps, 'not a name!', PASSWORD).catch((error: Error) => error.message));
    expect(new Set(messages)).toEqual(new Set(['The name or the password is wrong']));
  });

  it('a password that was right begins no session once another is set, or its user disabled or deleted', async () => {
    const deps = await openTestDeps(dialect);
    const meanwhile: ((id: string) => Promise<unknown>)[] = [
      async (id) => accept(deps, await invite(deps, { userId: id }), '', 'another long phrase'),
      (id) => setUserEnabled(deps, admin, { id }, false),
      (id) => deleteUser(deps, admin, { id }),
    ];
    for (const [i, change] of meanwhile.entries()) {
      const { id } = await newUser(deps, `ada${i}`, { withPassword: true });
      const judged = await signIn(deps, `ada${i}`, PASSWORD);
      await change(id);
      await expect(beginUserSession(deps, judged)).rejects.toThrow('The name or the password is wrong');
    }
    expect((await listUserSessions(deps, PAGE)).data).toEqual([]);
  });

  it('it takes as long for a name that nobody has as for a wrong password', async () => {
    const deps = await openTestDeps(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const timeOf = async (name: string) => {
      const began = performance.now();
      await outcomeOf(signIn(deps, name, 'wrong password'));
      return performance.now() - began;
    };
    const times: Record<string, number[]> = { ada: [], nobody: [] };
    for (let round = 0; round < 4; round++)
      for (const name of ['ada', 'nobody']) times[name]?.push(await timeOf(name));
    const least = (name: string) => Math.min(...(times[name] ?? []));
    // Without the hash it would be a hundredth.
    expect(least('nobody')).toBeGreaterThan(least('ada') / 2);
    expect(least('nobody')).toBeLessThan(least('ada') * 2);
  });

  it('five wrong passwords at a name from one network are the last for 15 minutes, others still sign in', async () => {
    const deps = await openTestDeps(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const thief = () => '198.51.100.7';
    for (const name of ['ada', 'nobody']) {
      for (let i = 0; i < 5; i++)
        expect(await outcomeOf(signIn(deps, name, 'wrong password', thief))).toBe('unauthenticated');
      // Whether anybody has the name makes no difference, nor whether the password is right.
      expect(await outcomeOf(signIn(deps, name, PASSWORD, thief))).toBe('rate_limited');
    }
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD))).toBe('ok');
    deps.clock.now += 15 * 60_000;
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD, thief))).toBe('ok');
  });

  it('tries at once are counted before they are made', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes: string[] = [];
    for (let i = 0; i < 5; i++)
      outcomes.push(
        ...(await Promise.all([1, 2].map(() => outcomeOf(signIn(deps, 'ada', 'wrong password'))))),
      );
    expect(outcomes.filter((outcome) => outcome === 'unauthenticated')).toHaveLength(5);
    expect(outcomes.filter((outcome) => outcome === 'rate_limited')).toHaveLength(5);
  });

  it('throttles are rows, and hold no name and no network', async () => {
    const deps = await openTestDeps(dialect);
    await outcomeOf(signIn(deps, 'adalovelace', 'wrong password', () => '198.51.100.7'));
    const { read } = deps.store;
    const rows = await read.db.select().from(read.tables.signInFailures);
    expect(rows.map(({ count }) => count)).toEqual([1, 1, 1]);
    expect(JSON.stringify(rows)).not.toMatch(/adalovelace|198/);
  });
});

describeOnEachDialect('users', (dialect) => {
  it('updateUser() changes what it is told to; another address is not verified', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newUser(deps, 'ada', { email: 'ada@example.com' });
    await updateUser(deps, admin, { id, emailVerified: true });
    const renamed = await updateUser(deps, admin, { id, name: 'Augusta' });
    expect(renamed).toMatchObject({ name: 'Augusta', emailVerified: true });
    const moved = await updateUser(deps, admin, { id, email: 'augusta@example.com' });
    expect(moved).toMatchObject({ email: 'augusta@example.com', emailVerified: false });
    expect((await listUsers(deps, { ...PAGE, signInName: 'ADA' })).data).toEqual([moved]);
  });

  it('disabling a user ends their sessions, and enabling gives none back', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps);
    const { value } = await newUserSession(deps, user);
    await setUserEnabled(deps, admin, user, false);
    expect(await findUserSession(deps, value)).toBeNull();
    await setUserEnabled(deps, admin, user, true);
    expect(await findUserSession(deps, value)).toBeNull();
  });

  it('deleting a user revokes every grant of theirs and frees the name', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps);
    const { value } = await newUserSession(deps, user);
    const application = {
      id: 'oauthapp_1',
      token_generation: 1,
      refresh_token_max_seconds: null,
      unused_until: null,
    };
    await deps.store.tx((tx) =>
      insertGrant(tx, deps, {
        application,
        subject: user.id,
        organizationId: null,
        scopes: ['openid'],
        resources: [],
        redirectUri: 'https://app.example/callback',
        claims: {},
        authTime: deps.now(),
        nonce: null,
      }),
    );
    await deleteUser(deps, admin, user);
    expect(await findUserSession(deps, value)).toBeNull();
    const { read } = deps.store;
    const [grant] = await read.db.select().from(read.tables.oauthGrants);
    expect(grant).toMatchObject({ revoked_at: deps.now(), revocation_reason: 'user_deleted' });
    expect((await newUser(deps)).id).not.toBe(user.id);
  });

  it('a row that a writer to the database changed is made sound by no change; it may be disabled and deleted', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newUser(deps, 'ada', { withPassword: true });
    const value = await invite(deps, { userId: id });
    await deps.store.tx(({ db, tables: { users: u } }) =>
      db.update(u).set({ email: 'boss@example.com', email_verified: true }).where(eq(u.id, id)),
    );
    const changes = [
      () => updateUser(deps, admin, { id, name: 'Augusta' }),
      () => setUserEnabled(deps, admin, { id }, true),
      () => invite(deps, { userId: id }),
      () => accept(deps, value, '', 'another long phrase'),
    ];
    for (const change of changes) expect(await outcomeOf(change())).toBe('wrong_state');
    expect(await setUserEnabled(deps, admin, { id }, false)).toMatchObject({ enabled: false });
    expect(await outcomeOf(setUserEnabled(deps, admin, { id }, true))).toBe('wrong_state');
    const row = await readUser(deps.store.read, id);
    expect(row && mayBeSignedIn(deps, { ...row, enabled: true })).toBe(false);
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD))).toBe('unauthenticated');
    expect(await outcomeOf(deleteUser(deps, admin, { id }))).toBe('ok');
  });

  it('a row that a writer to the database changed signs nobody in', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps, 'ada', { withPassword: true });
    const thief = await newUser(deps, 'thief', { withPassword: true });
    const { value } = await newUserSession(deps, user);
    const setOn = (id: string, columns: object) =>
      deps.store.tx(({ db, tables: { users: u } }) => db.update(u).set(columns).where(eq(u.id, id)));
    await setOn(user.id, { password_hash: thief.password_hash });
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD))).toBe('unauthenticated');
    await setOn(user.id, { password_hash: user.password_hash, email: 'boss@example.com' });
    expect(await outcomeOf(signIn(deps, 'ada', PASSWORD))).toBe('unauthenticated');
    expect(await findUserSession(deps, value)).toBeNull();
  });
});

describeOnEachDialect('sessions of users', (dialect) => {
  it('a session says who is signed in, and its value is nowhere', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps);
    const { value, user: signedIn } = await newUserSession(deps, user);
    expect(await findUserSession(deps, value)).toEqual(signedIn);
    expect(signedIn).toMatchObject({
      subject: user.id,
      authTime: deps.now(),
      claims: { name: 'Ada Lovelace' },
    });
    const { read } = deps.store;
    expect(JSON.stringify(await read.db.select().from(read.tables.userSessions))).not.toContain(value);
    expect((await newUserSession(deps, user)).value).not.toBe(value);
    await endUserSession(deps, value);
    expect(await findUserSession(deps, value)).toBeNull();
  });

  it('a session ends by itself: unused for 24 h, and after 14 days in any case', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps);
    const [used, idle] = [(await newUserSession(deps, user)).value, (await newUserSession(deps, user)).value];
    const began = deps.clock.now;
    while (deps.clock.now < began + SESSION_MS - IDLE_MS / 2) {
      deps.clock.now += IDLE_MS / 2;
      expect(await findUserSession(deps, used)).not.toBeNull();
    }
    expect(await findUserSession(deps, idle)).toBeNull();
    deps.clock.now = began + SESSION_MS;
    expect(await findUserSession(deps, used)).toBeNull();
  });

  it('a session tells of its user what is so now', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps, 'ada', { email: 'ada@example.com' });
    await updateUser(deps, admin, { id: user.id, emailVerified: true });
    const { value } = await newUserSession(deps, (await readUser(deps.store.read, user.id)) ?? user);
    await updateUser(deps, admin, { id: user.id, name: null, email: 'augusta@example.com' });
    const claims = { preferred_username: 'ada', email: 'augusta@example.com', email_verified: false };
    expect((await findUserSession(deps, value))?.claims).toEqual(claims);
  });

  it('a session that a writer to the database made another’s is none', async () => {
    const deps = await openTestDeps(dialect);
    const [user, victim] = [await newUser(deps, 'thief'), await newUser(deps, 'victim')];
    const changes: object[] = [
      { subject: victim.id },
      { claims: { email: 'boss@example.com', email_verified: true } },
      { organizations: [{ id: 'org_1', name: 'Acme' }] },
      { auth_time: 0 },
      { expires_at: Number.MAX_SAFE_INTEGER },
      { source: HANDED_OFF },
    ];
    for (const columns of changes) {
      const { value, user: session } = await newUserSession(deps, user);
      await deps.store.tx(({ db, tables: { userSessions: s } }) =>
        db.update(s).set(columns).where(eq(s.id, session.sessionId)),
      );
      expect(await findUserSession(deps, value), JSON.stringify(columns)).toBeNull();
    }
  });

  it('a session counts only while users sign in the way it was begun by', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await newUserSession(deps, await newUser(deps));
    const handoff: TestDeps = { ...deps, signIn: { kind: 'handoff', url: 'https://app.example/sign-in' } };
    expect(await findUserSession(handoff, value)).toBeNull();
    const who = { subject: 'ada', source: HANDED_OFF, claims: {}, organizations: [] };
    const theirs = (await beginUserSession(handoff, who)).value;
    expect(await findUserSession(handoff, theirs)).toMatchObject({ subject: 'ada' });
    expect(await findUserSession(deps, theirs)).toBeNull();
  });

  it('a subject that is disabled has no session and begins none, until it is enabled', async () => {
    const deps: TestDeps = {
      ...(await openTestDeps(dialect)),
      signIn: { kind: 'handoff', url: 'https://app.example/sign-in' },
    };
    const who = { subject: 'ada', source: HANDED_OFF, claims: {}, organizations: [] };
    const { value } = await beginUserSession(deps, who);
    await setSubjectEnabled(deps, admin, { id: 'ada' }, false);
    expect(await findUserSession(deps, value)).toBeNull();
    await expect(beginUserSession(deps, who)).rejects.toThrow('This user may not sign in');
    await setSubjectEnabled(deps, admin, { id: 'ada' }, true);
    expect(await findUserSession(deps, value)).not.toBeNull();
  });

  it('no session is begun for a machine, an organization, an application or a credential', async () => {
    const deps = await openTestDeps(dialect);
    for (const subject of ['mch_1', 'org_1', 'oauthapp_1', 'oat_1', 'sk_1'])
      expect(
        await outcomeOf(
          beginUserSession(deps, { subject, source: HANDED_OFF, claims: {}, organizations: [] }),
        ),
      ).toBe('forbidden');
  });

  it('the oldest goes where a user has as many as there may be', async () => {
    const deps = await openTestDeps(dialect);
    const user = await newUser(deps);
    const values: string[] = [];
    for (let i = 0; i <= SESSIONS_MAX; i++) {
      deps.clock.now += 1_000;
      values.push((await newUserSession(deps, user)).value);
    }
    expect(await findUserSession(deps, values[0])).toBeNull();
    expect(await findUserSession(deps, values[1])).not.toBeNull();
    const { data } = await listUserSessions(deps, { ...PAGE, subject: user.id });
    expect(data).toHaveLength(SESSIONS_MAX);
    expect(data[0]?.createdAt).toBeGreaterThan(data[1]?.createdAt ?? 0);
  });

  it('a user ends their own sessions alone', async () => {
    const deps = await openTestDeps(dialect);
    const [ada, bob] = [await newUser(deps, 'ada'), await newUser(deps, 'bob')];
    const { user: session } = await newUserSession(deps, ada);
    const asBob: Caller = { principal: { kind: 'user', id: bob.id }, requestId: 'req_1' };
    const end = (whose: string) => endUserSessionById(deps, asBob, { id: session.sessionId }, whose);
    expect(await outcomeOf(end(bob.id))).toBe('not_found');
    expect(await outcomeOf(end(ada.id))).toBe('ok');
  });
});
