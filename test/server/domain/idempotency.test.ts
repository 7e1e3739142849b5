import { hash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import { create, deleteExpiredIdempotencyKeys } from '../../../server/domain/idempotency.ts';
import { ERRORS } from '../../../server/errors.ts';
import { call, MUTATIONS, outcomeOf } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';
import { newPanelToken } from '../../support/panels.ts';

const admin = callerWith('admin');
const DAY_MS = 24 * 3_600_000;

/** An input of each creation, and whether what it answers the first time holds a value that is answered once. */
const CREATIONS: Record<
  string,
  { input: (ids: [string, string]) => object; once?: 'secret' | 'token' | 'link' }
> = {
  'machines.create': { input: () => ({ name: 'another' }), once: 'secret' },
  'machineScopes.create': { input: ([from, to]) => ({ fromMachineId: to, toMachineId: from }) },
  'm2mTokens.create': { input: () => ({ format: 'jwt', claims: { a: 1 } }), once: 'token' },
  'apiKeys.create': {
    input: () => ({ name: 'ci', subject: 'user_1', claims: { a: 1, b: { c: [1], d: 2 } } }),
    once: 'secret',
  },
  'keyPolicies.create': { input: () => ({ name: 'standard', allowedScopes: ['read'] }) },
  'oauthApplications.create': {
    input: () => ({ name: 'notes', redirectUris: ['https://app.example/cb'] }),
    once: 'secret',
  },
  'initialAccessTokens.create': { input: () => ({ name: 'partner', uses: 2 }), once: 'token' },
  'oauthScopes.create': { input: () => ({ name: 'notes:read', description: 'Read your notes' }) },
  'keyPrefixes.create': { input: () => ({ prefix: 'acme_' }) },
  'panelTokens.create': { input: () => ({ subject: 'user_1', actions: ['read'] }), once: 'token' },
  'panelIssuers.create': { input: () => ({ issuer: 'https://login.example', audience: 'app' }) },
  'panelKeys.create': { input: () => ({ name: 'own', description: 'mine' }), once: 'secret' },
  'secretKeys.create': { input: () => ({ name: 'ci', role: 'read' }), once: 'secret' },
  'signingKeys.create': { input: () => ({ alg: 'EdDSA' }) },
  'users.invite': { input: () => ({ email: 'ada@example.com' }), once: 'link' },
  'webhookEndpoints.create': { input: () => ({ url: 'https://receiver.example/' }), once: 'secret' },
};

/** These append no event. */
const MINTING = ['m2mTokens.create', 'panelTokens.create'];

type Answer = Record<string, unknown>;

async function open(dialect: Parameters<typeof openTestDeps>[0]) {
  const deps = await openTestDeps(dialect);
  const from = await newMachine(deps, 'from');
  const to = await newMachine(deps, 'to');
  await allow(deps, from.id, to.id);
  const callers: Record<string, string> = {
    'm2mTokens.create': from.secret,
    'panelKeys.create': await newPanelToken(deps, 'user_1'),
  };
  const by = (path: string) => callers[path] ?? deps.adminKey;
  return {
    deps,
    ids: [from.id, to.id] as [string, string],
    by,
    create: (path: string, input: object) => call(deps, by(path), path, input) as Promise<Answer>,
  };
}

const events = async (deps: TestDeps) => (await listEvents(deps, { after: 0, limit: 500 })).data.length;

const kept = ({ store: { read } }: TestDeps) => read.db.select().from(read.tables.idempotencyKeys);

const createKey = (deps: TestDeps, more: object) =>
  call(deps, deps.adminKey, 'apiKeys.create', { name: 'ci', subject: 'user_1', ...more }) as Promise<Answer>;

describe('the table of creations', () => {
  it('has a row for everything that is called a creation', () => {
    expect(Object.keys(CREATIONS).sort()).toEqual(
      MUTATIONS.filter((path) => path.endsWith('.create') || path === 'users.invite').sort(),
    );
  });

  it('idempotency_conflict is a 409 that is not sent again', () => {
    expect(ERRORS.idempotency_conflict).toMatchObject({ status: 409, retryable: false });
  });
});

describeOnEachDialect('idempotency', (dialect) => {
  for (const [path, { input, once }] of Object.entries(CREATIONS)) {
    it(`${path} with a key of before answers what it did, without its value and without an event`, async () => {
      const { deps, ids, create } = await open(dialect);
      const given = { ...input(ids), idempotencyKey: 'order-1' };
      const first = await create(path, given);
      if (once) expect(first[once]).toEqual(expect.any(String));
      const before = await events(deps);
      deps.clock.now += 5_000;

      const { secret: _, token: __, link: ___, ...shown } = first;
      expect(await create(path, given)).toStrictEqual(shown);
      expect(await events(deps)).toBe(before);
      expect(await outcomeOf(create(path, { ...given, idempotencyKey: 'order 2' }))).toBe('invalid_input');
    });

    it(`${path} called several times at once with one key creates once`, async () => {
      const { deps, ids, create } = await open(dialect);
      const given = { ...input(ids), idempotencyKey: 'order-1' };
      const before = await events(deps);
      const answers = await Promise.all(Array.from({ length: 6 }, () => create(path, given)));
      if (once) expect(answers.filter((answer) => once in answer)).toHaveLength(1);
      const shown = answers.map(({ secret: _, token: __, link: ___, ...rest }) =>
        JSON.stringify(sorted(rest)),
      );
      expect(new Set(shown).size).toBe(1);
      expect(await events(deps)).toBe(before + (MINTING.includes(path) ? 0 : 1));
      expect(await kept(deps)).toHaveLength(1);
    });

    it(`${path} keeps neither value nor input`, async () => {
      const { deps, ids, create } = await open(dialect);
      const first = await create(path, { ...input(ids), idempotencyKey: 'order-1' });
      const [row] = await kept(deps);
      expect(row?.answer).toEqual(expect.objectContaining({ createdAt: deps.clock.now }));
      expect(row?.answer).not.toHaveProperty('secret');
      expect(row?.answer).not.toHaveProperty('token');
      expect(row?.answer).not.toHaveProperty('link');
      if (once) expect(JSON.stringify(row)).not.toContain(first[once]);
      expect(row?.input_hash).toHaveLength(32);
    });
  }

  it('another input with the same key is refused, whatever differs, and changes nothing', async () => {
    const { deps } = await open(dialect);
    const given = { claims: { a: 1, b: { c: [1, 2], d: null } }, idempotencyKey: 'k' };
    const { id } = await createKey(deps, given);
    const before = await events(deps);
    for (const other of [
      { name: 'other' },
      { claims: { a: 1, b: { c: [2, 1], d: null } } },
      { claims: { a: 1, b: { c: [1, 2] } } },
      { scopes: ['read'] },
      { expiresAt: null },
    ]) {
      const calling = createKey(deps, { ...given, ...other });
      expect(await outcomeOf(calling)).toBe('idempotency_conflict');
    }
    expect(await events(deps)).toBe(before);
    const reordered = { claims: { b: { d: null, c: [1, 2] }, a: 1 }, scopes: [] };
    expect(await createKey(deps, { ...given, ...reordered })).toMatchObject({ id });
  });

  it('a key is one principal’s for one procedure', async () => {
    const { deps, create } = await open(dialect);
    const input = { name: 'another', role: 'admin', idempotencyKey: 'k' };
    const { secret } = await create('secretKeys.create', input);
    const { secret: theirs } = await call(deps, String(secret), 'secretKeys.create', input).then(
      (answer) => answer as Answer,
    );
    expect(theirs).toEqual(expect.any(String));
    expect(theirs).not.toBe(secret);
    expect(await createKey(deps, { idempotencyKey: 'k' })).toHaveProperty('secret');
    const hashes = (await kept(deps)).map((row) => row.input_hash.toString('hex'));
    expect(new Set(hashes).size).toBe(3);
  });

  it('the hash of an input is keyed: the database alone does not confirm a guess', async () => {
    const { deps } = await open(dialect);
    await createKey(deps, { idempotencyKey: 'k' });
    const [row] = await kept(deps);
    const { idempotencyKey: _, ...input } = {
      name: 'ci',
      subject: 'user_1',
      scopes: [],
      idempotencyKey: 'k',
    };
    for (const text of [JSON.stringify(input), JSON.stringify({ ...input, idempotencyKey: 'k' })])
      expect(row?.input_hash.equals(hash('sha256', text, 'buffer'))).toBe(false);
    const [theirs] = await open(dialect).then(async (other) => {
      await createKey(other.deps, { idempotencyKey: 'k' });
      return kept(other.deps);
    });
    expect(theirs?.input_hash.equals(row?.input_hash as Buffer)).toBe(false);
  });

  it('a creation that fails leaves its key free, for another input too', async () => {
    const { deps } = await open(dialect);
    await createKey(deps, {});
    expect(await outcomeOf(createKey(deps, { idempotencyKey: 'k' }))).toBe('name_taken');
    expect(await kept(deps)).toEqual([]);
    expect(await createKey(deps, { name: 'other', idempotencyKey: 'k' })).toHaveProperty('secret');
  });

  it('of two at once of which one fails, the other creates', async () => {
    const { deps } = await open(dialect);
    const creation = { procedure: 'things.create', input: { idempotencyKey: 'k' } } as const;
    const failing = create(deps, admin, creation, async (tx) => {
      await tx.db.select().from(tx.tables.installation);
      throw new Error('It is not to be');
    });
    const working = create(deps, admin, creation, async (tx) => {
      await tx.db.select().from(tx.tables.installation);
      return { result: { id: 'thing', secret: 'value' }, event: null };
    });
    const [failed, worked] = await Promise.allSettled([failing, working]);
    expect(failed).toMatchObject({ status: 'rejected' });
    expect(worked).toMatchObject({ value: { id: 'thing', secret: 'value' } });
    expect(await kept(deps)).toMatchObject([{ answer: { id: 'thing' } }]);
  });

  it('a call is answered as before although its input would now be refused', async () => {
    const { deps, create } = await open(dialect);
    const given = { idempotencyKey: 'k', expiresAt: deps.clock.now + 1_000 };
    const { id } = await createKey(deps, given);
    const secretKey = { name: 'ci', role: 'read', ...given };
    const { id: secretKeyId } = await create('secretKeys.create', secretKey);
    deps.clock.now += 2_000;
    expect(await createKey(deps, given)).toMatchObject({ id });
    expect(await create('secretKeys.create', secretKey)).toMatchObject({ id: secretKeyId });
  });

  it('after 24 hours a key is new, also for several at once', async () => {
    const { deps } = await open(dialect);
    const given = { idempotencyKey: 'k' };
    const { id } = await createKey(deps, given);
    deps.clock.now += DAY_MS - 1;
    expect(await createKey(deps, given)).not.toHaveProperty('secret');
    deps.clock.now += 1;
    expect(await outcomeOf(createKey(deps, given))).toBe('name_taken');
    const other = { ...given, name: 'other' };
    const answers = await Promise.all(Array.from({ length: 6 }, () => createKey(deps, other)));
    expect(answers.filter((answer) => 'secret' in answer)).toHaveLength(1);
    expect(new Set(answers.map((answer) => answer['id'])).size).toBe(1);
    expect(answers[0]?.['id']).not.toBe(id);
    expect(await kept(deps)).toMatchObject([{ created_at: deps.clock.now }]);
  });

  it('deleteExpiredIdempotencyKeys() deletes those of more than 24 hours ago, however many, and no other', async () => {
    const { deps } = await open(dialect);
    const row = (index: number, expiresAt: number) => ({
      principal_id: 'sk_1',
      procedure: 'machines.create',
      key: `key-${index}`,
      input_hash: Buffer.alloc(32),
      answer: {},
      created_at: expiresAt - DAY_MS,
      expires_at: expiresAt,
    });
    const { now } = deps.clock;
    const old = Array.from({ length: 1_200 }, (_, index) => row(index, now - (index % 7)));
    await deps.store.tx(async ({ db, tables }) => {
      await db.insert(tables.idempotencyKeys).values([...old, row(5_000, now + 1)]);
    });
    const sizes = [];
    for (let i = 0; i < 4; i++) sizes.push(await deleteExpiredIdempotencyKeys(deps, 500));
    expect(sizes).toEqual([500, 500, 200, 0]);
    expect(await kept(deps)).toMatchObject([{ key: 'key-5000' }]);
  });

  it('whatever is called in whatever order, each key creates at most one thing and yields its value once', async () => {
    const { deps } = await open(dialect);
    let run = 0;
    const calls = fc.array(
      fc.record({ key: fc.constantFrom('a', 'b'), scope: fc.constantFrom('read', 'write') }),
      { minLength: 1, maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(calls, fc.boolean(), async (sequence, atOnce) => {
        run++;
        const before = await events(deps);
        const input = ({ key, scope }: { key: string; scope: string }) => ({
          subject: `user_${run}`,
          name: key,
          scopes: [scope],
          idempotencyKey: `${run}-${key}`,
        });
        const outcomes: PromiseSettledResult<Answer>[] = [];
        if (atOnce)
          outcomes.push(...(await Promise.allSettled(sequence.map((each) => createKey(deps, input(each))))));
        else
          for (const each of sequence)
            outcomes.push(...(await Promise.allSettled([createKey(deps, input(each))])));

        const used = new Set(sequence.map(({ key }) => key));
        expect(await events(deps)).toBe(before + used.size);
        for (const key of used) {
          const ofKey = outcomes.filter((_, index) => sequence[index]?.key === key);
          const answers = ofKey.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
          expect(answers.filter((answer) => 'secret' in answer)).toHaveLength(1);
          expect(new Set(answers.map((answer) => answer['id'])).size).toBe(1);
          const scopes = new Set(answers.map((answer) => String(answer['scopes'])));
          expect(scopes.size).toBe(1);
          for (const [index, outcome] of outcomes.entries()) {
            if (sequence[index]?.key !== key) continue;
            const isSame = scopes.has(String(sequence[index]?.scope));
            expect(outcome.status).toBe(isSame ? 'fulfilled' : 'rejected');
            if (outcome.status === 'rejected')
              expect(outcome.reason).toMatchObject({ cause: { code: 'idempotency_conflict' } });
          }
        }
      }),
      { numRuns: 25 },
    );
  });
});

/** With its fields in one order. */
const sorted = (record: Answer) => Object.fromEntries(Object.entries(record).sort());
