import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Caller } from '../../../server/deps.ts';
import {
  cancelApiKeyRotation,
  completeApiKeyRotation,
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  getApiKey,
  revokeApiKey,
  revokeApiKeyInput,
  rotateApiKey,
  rotateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { type Verification, verify } from '../../../server/domain/credentials.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  getM2mToken,
  listM2mTokens,
  listM2mTokensInput,
} from '../../../server/domain/m2m-tokens.ts';
import {
  cancelMachineRotation,
  completeMachineRotation,
  deleteMachine,
  getMachine,
  rotateMachineSecret,
  rotateMachineSecretInput,
  rotateOwnMachineSecret,
  rotateOwnMachineSecretInput,
} from '../../../server/domain/machines.ts';
import {
  cancelSecretKeyRotation,
  completeSecretKeyRotation,
  createSecretKey,
  createSecretKeyInput,
  listSecretKeys,
  listSecretKeysInput,
  revokeSecretKey,
  rotateSecretKey,
  rotateSecretKeyInput,
} from '../../../server/domain/secret-keys.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  type Dialect,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';

const admin = callerWith('admin');
const DAY = 86_400_000;

const ask = (deps: TestDeps, credential: string, audience?: string): Promise<Verification> =>
  verify(deps, presented(deps.adminKey), { credential, ...(audience && { audience }) }, (principal) => {
    if (!principal) throw new Error('The admin key is not recognised');
    return principal;
  });

interface Options {
  overlapSeconds?: number;
  compromised?: boolean;
}

interface Owner {
  id: string;
  secret?: string;
}

/** A noun whose values rotate, as the properties below see it. */
interface Noun {
  create: (deps: TestDeps, ttlSeconds?: number) => Promise<Owner>;
  rotate: (
    deps: TestDeps,
    id: string,
    options: Options,
  ) => Promise<Owner & { previousExpiresAt: number | null }>;
  cancel: (deps: TestDeps, id: string) => Promise<unknown>;
  complete: (deps: TestDeps, id: string) => Promise<unknown>;
  /** For good; a machine's secret is revoked with the machine alone. */
  revoke: ((deps: TestDeps, id: string) => Promise<unknown>) | null;
  /** The owner's id if the value is accepted, or null. */
  accepts: (deps: TestDeps, value: string) => Promise<string | null>;
  show: (deps: TestDeps, id: string) => Promise<object | undefined>;
}

const NOUNS: Record<string, Noun> = {
  machine: {
    create: (deps) => newMachine(deps, 'billing'),
    rotate: (deps, id, options) =>
      rotateMachineSecret(deps, admin, rotateMachineSecretInput.parse({ id, ...options })),
    cancel: (deps, id) => cancelMachineRotation(deps, admin, id),
    complete: (deps, id) => completeMachineRotation(deps, admin, id),
    revoke: null,
    accepts: async (deps, value) => (await findCaller(deps, value, anywhere))?.id ?? null,
    show: (deps, id) => getMachine(deps, { id }),
  },
  api_key: {
    create: (deps, ttlSeconds) =>
      createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1', ttlSeconds })),
    rotate: (deps, id, options) => rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, ...options })),
    cancel: (deps, id) => cancelApiKeyRotation(deps, admin, id),
    complete: (deps, id) => completeApiKeyRotation(deps, admin, id),
    revoke: (deps, id) => revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id })),
    accepts: async (deps, value) => {
      const outcome = await ask(deps, value);
      return outcome.valid ? outcome.id : null;
    },
    show: async (deps, id) => ({ ...(await getApiKey(deps, { id })), start: '', state: '' }),
  },
  secret_key: {
    create: (deps, ttlSeconds) =>
      createSecretKey(deps, admin, createSecretKeyInput.parse({ name: 'ci', role: 'read', ttlSeconds })),
    rotate: (deps, id, options) =>
      rotateSecretKey(deps, admin, rotateSecretKeyInput.parse({ id, ...options })),
    cancel: (deps, id) => cancelSecretKeyRotation(deps, admin, id),
    complete: (deps, id) => completeSecretKeyRotation(deps, admin, id),
    revoke: (deps, id) => revokeSecretKey(deps, admin, { id }),
    accepts: async (deps, value) => (await findCaller(deps, value, anywhere))?.id ?? null,
    show: async (deps, id) => {
      const page = await listSecretKeys(deps, listSecretKeysInput.parse({}));
      const key = page.data.find((each) => each.id === id);
      return key && { ...key, start: '', state: '' };
    },
  },
};

type Step =
  | { do: 'rotate'; overlapSeconds: number }
  | { do: 'compromised' | 'cancel' | 'complete' | 'revoke' }
  | { do: 'wait'; ms: number };

const steps = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('rotate' as const),
        overlapSeconds: fc.constantFrom(0, 1, 60, 2_592_000),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('cancel' as const, 'complete' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constantFrom('compromised' as const, 'compromised' as const, 'revoke' as const),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('wait' as const),
        ms: fc.constantFrom(1, 999, 1000, 60_000, 30 * DAY),
      }),
    },
  ),
  { minLength: 1, maxLength: 12 },
);

/** What is promised, in the fewest words: each value and when it ends, null for never. */
class Model {
  readonly ends = new Map<string, number | null>();
  current: string;
  previous: string | null = null;
  revoked = false;
  readonly ownerExpiresAt: number | null;

  constructor(first: string, ownerExpiresAt: number | null) {
    this.current = first;
    this.ownerExpiresAt = ownerExpiresAt;
    this.ends.set(first, ownerExpiresAt);
  }

  accepts(value: string, now: number): boolean {
    const end = this.ends.get(value);
    if (this.revoked) return false;
    return end === null || (end !== undefined && now < end);
  }

  overlaps(now: number): boolean {
    const ownerLives = this.ownerExpiresAt === null || now < this.ownerExpiresAt;
    return ownerLives && this.previous !== null && this.accepts(this.previous, now);
  }

  rotate(value: string, end: number) {
    this.ends.set(this.current, Math.min(this.ends.get(this.current) ?? Number.POSITIVE_INFINITY, end));
    this.previous = this.current;
    this.current = value;
    this.ends.set(value, this.ownerExpiresAt);
  }

  cancel(now: number) {
    this.ends.set(this.current, now);
    this.current = this.previous ?? '';
    this.previous = null;
    this.ends.set(this.current, this.ownerExpiresAt);
  }

  complete(now: number) {
    this.ends.set(this.previous ?? '', now);
    this.previous = null;
  }

  compromise(value: string, now: number) {
    for (const known of this.ends.keys()) this.ends.set(known, Math.min(this.ends.get(known) ?? now, now));
    this.previous = null;
    this.current = value;
    this.ends.set(value, this.ownerExpiresAt);
  }
}

const codeOf = (error: unknown) => (error as { code?: string }).code ?? String(error);

/** Takes one step on both, and expects of the real one what the model says. */
async function take(deps: TestDeps, noun: Noun, id: string, model: Model, step: Step): Promise<void> {
  const now = deps.clock.now;
  const overlaps = model.overlaps(now);
  if (step.do === 'wait') {
    deps.clock.now += step.ms;
    return;
  }
  if (step.do === 'revoke') {
    await noun.revoke?.(deps, id);
    model.revoked = noun.revoke !== null;
    return;
  }
  if (model.revoked) {
    const refused =
      step.do === 'cancel' || step.do === 'complete' ? noun[step.do](deps, id) : noun.rotate(deps, id, {});
    expect(await refused.catch(codeOf)).toBe('already_revoked');
    return;
  }
  switch (step.do) {
    case 'compromised':
      model.compromise((await noun.rotate(deps, id, { compromised: true })).secret ?? '', now);
      return;
    case 'rotate': {
      const outcome = await noun.rotate(deps, id, { overlapSeconds: step.overlapSeconds }).catch(codeOf);
      if (typeof outcome === 'string') expect([outcome, overlaps]).toEqual(['rotation_in_progress', true]);
      else {
        expect(overlaps).toBe(false);
        const { current } = model;
        model.rotate(outcome.secret ?? '', now + step.overlapSeconds * 1000);
        const previousExpiresAt = model.accepts(current, now) ? model.ends.get(current) : null;
        expect(outcome.previousExpiresAt).toBe(previousExpiresAt);
      }
      return;
    }
    case 'cancel':
    case 'complete': {
      const refused = await noun[step.do](deps, id).then(() => null, codeOf);
      expect(refused).toBe(overlaps ? null : 'no_rotation_in_progress');
      if (overlaps) model[step.do](now);
    }
  }
}

async function checkNoun(dialect: Dialect, noun: Noun, ttlSeconds?: number) {
  const deps = await openTestDeps(dialect);
  let owners = 0;
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      owners += 1;
      const { id, secret = '' } = await noun.create(deps, ttlSeconds);
      const shownAtFirst = await noun.show(deps, id);
      const model = new Model(secret, ttlSeconds === undefined ? null : deps.clock.now + ttlSeconds * 1000);
      for (const step of sequence) {
        await take(deps, noun, id, model, step);
        const accepted: string[] = [];
        for (const value of model.ends.keys())
          if ((await noun.accepts(deps, value)) === id) accepted.push(value);
        const expected = [...model.ends.keys()].filter((value) => model.accepts(value, deps.clock.now));
        expect(accepted).toEqual(expected);
        expect(accepted.length).toBeLessThanOrEqual(2);
      }
      if (!model.revoked) expect(await noun.show(deps, id)).toEqual(shownAtFirst);
      await retire(deps, id);
    }),
    { numRuns: dialect === 'sqlite' ? 40 : 15 },
  );
  expect(owners).toBeGreaterThan(0);
}

/** Names are unique, so the next run takes the name over. */
async function retire(deps: TestDeps, id: string) {
  if (id.startsWith('mch_')) await deleteMachine(deps, admin, id);
  if (id.startsWith('ak_')) await deleteApiKey(deps, admin, id);
}

describeOnEachDialect('rotation', (dialect) => {
  for (const [name, noun] of Object.entries(NOUNS)) {
    it(`whatever is done to a ${name}, it stays itself but for its values: at most two are accepted, as long as the model says`, () =>
      checkNoun(dialect, noun));
    if (name !== 'machine')
      it(`the old value of a ${name} that expires never outlives it`, () => checkNoun(dialect, noun, 100));

    it(`exactly one of many rotations of a ${name} at once begins an overlap`, async () => {
      const deps = await openTestDeps(dialect);
      const { id, secret = '' } = await noun.create(deps);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 10 }, () => noun.rotate(deps, id, { overlapSeconds: 60 })),
      );
      const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      expect(won).toHaveLength(1);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected')
          expect(outcome.reason).toMatchObject({ code: 'rotation_in_progress', status: 409 });
      expect(await noun.accepts(deps, won[0]?.secret ?? '')).toBe(id);
      expect(await noun.accepts(deps, secret)).toBe(id);
    });

    it(`exactly one of cancelling and completing the same rotation of a ${name} at once is done`, async () => {
      const deps = await openTestDeps(dialect);
      const { id, secret = '' } = await noun.create(deps);
      const rotated = await noun.rotate(deps, id, { overlapSeconds: 60 });
      const outcomes = await Promise.allSettled([noun.cancel(deps, id), noun.complete(deps, id)]);
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      const accepted = [secret, rotated.secret ?? ''].map((value) => noun.accepts(deps, value));
      expect((await Promise.all(accepted)).filter((owner) => owner === id)).toHaveLength(1);
    });

    it(`rotating a ${name} that is compromised allows no overlap beside it`, async () => {
      const deps = await openTestDeps(dialect);
      const { id, secret = '' } = await noun.create(deps);
      await expect(noun.rotate(deps, id, { overlapSeconds: 60, compromised: true })).rejects.toThrow(
        /wanted no overlap/,
      );
      expect(await noun.accepts(deps, secret)).toBe(id);
    });

    it(`the event of a rotated ${name} holds no value`, async () => {
      const deps = await openTestDeps(dialect);
      const { id } = await noun.create(deps);
      const { secret = '' } = await noun.rotate(deps, id, { overlapSeconds: 60 });
      const [event] = (await listEvents(deps, { after: 2, limit: 10 })).data;
      expect(event).toMatchObject({
        type: `${name}.secret_rotated`,
        objectId: id,
        data: { compromised: false, previousExpiresAt: deps.clock.now + 60_000 },
      });
      expect(JSON.stringify(event)).not.toContain(secret.slice(0, 9));
    });
  }

  it('a machine rotates with its newest secret only, and only one of many such calls does', async () => {
    const deps = await openTestDeps(dialect);
    const { id, caller } = await newMachine(deps, 'billing');
    const rotateOwn = (by: Caller) =>
      rotateOwnMachineSecret(deps, by, rotateOwnMachineSecretInput.parse({ overlapSeconds: 0 }));
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => rotateOwn(caller)));
    const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    expect(won).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'forbidden' });
    const newest = await findCaller(deps, won[0]?.secret ?? '', anywhere);
    expect(newest).toMatchObject({ kind: 'machine', id });
    if (newest) await rotateOwn({ principal: newest, requestId: 'req_test' });
    await expect(rotateOwn(admin)).rejects.toMatchObject({ code: 'forbidden' });
  });

  it("a machine's own rotation gives it an hour with both, and its old secret cannot rotate again", async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret, caller } = await newMachine(deps, 'billing');
    const { previousExpiresAt } = await rotateOwnMachineSecret(deps, caller, {});
    expect(previousExpiresAt).toBe(deps.clock.now + 3_600_000);
    await expect(rotateOwnMachineSecret(deps, caller, {})).rejects.toMatchObject({ code: 'forbidden' });
    await cancelMachineRotation(deps, admin, id);
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({ id });
    await rotateOwnMachineSecret(deps, caller, {});
  });

  it('rotateOwnMachineSecretInput lets no machine say that it is compromised', () => {
    expect(rotateOwnMachineSecretInput.safeParse({ compromised: true }).success).toBe(false);
  });

  it('a compromised machine loses every token minted before, opaque and JWT, and keeps those minted after', async () => {
    const deps = await openTestDeps(dialect);
    const from = await newMachine(deps, 'from');
    const to = await newMachine(deps, 'to');
    await allow(deps, from.id, to.id);
    const mint = async (by: Caller) =>
      Promise.all(
        [{}, { format: 'jwt' }, { minRemainingTtlSeconds: 60 }].map((input) =>
          createM2mToken(deps, by, createM2mTokenInput.parse(input)),
        ),
      );
    const callerOf = async (secret = ''): Promise<Caller> => {
      const principal = await findCaller(deps, secret, anywhere);
      if (!principal) throw new Error('Not recognised');
      return { principal, requestId: 'req_test' };
    };
    const overlapping = await NOUNS['machine']?.rotate(deps, from.id, { overlapSeconds: 60 });
    const before = [...(await mint(from.caller)), ...(await mint(await callerOf(overlapping?.secret)))];
    for (const { token = '' } of before) expect(await ask(deps, token, to.id)).toMatchObject({ valid: true });

    const rotated = await NOUNS['machine']?.rotate(deps, from.id, { compromised: true });
    for (const { id, token = '' } of before) {
      expect(await ask(deps, token, to.id)).toMatchObject({ valid: false, reason: 'revoked' });
      expect(await getM2mToken(deps, admin, { id })).toMatchObject({
        state: 'revoked',
        revokedAt: deps.clock.now,
      });
    }
    await expect(mint(from.caller)).rejects.toMatchObject({ code: 'unauthenticated' });
    const after = await mint(await callerOf(rotated?.secret));
    for (const { token = '' } of after) expect(await ask(deps, token, to.id)).toMatchObject({ valid: true });
    const live = await listM2mTokens(
      deps,
      admin,
      listM2mTokensInput.parse({ machineId: from.id, state: 'live' }),
    );
    expect(live.data.map(({ id }) => id).sort()).toEqual(after.map(({ id }) => id).sort());
    const [event] = (await listEvents(deps, { after: 0, limit: 50 })).data.slice(-1);
    expect(event).toMatchObject({ data: { compromised: true, selector: { machineId: from.id } } });
  });

  it('tokens minted with either secret live on when an overlap is cancelled or completed', async () => {
    const deps = await openTestDeps(dialect);
    const from = await newMachine(deps, 'from');
    const to = await newMachine(deps, 'to');
    await allow(deps, from.id, to.id);
    const { token = '' } = await createM2mToken(deps, from.caller, createM2mTokenInput.parse({}));
    for (const end of [cancelMachineRotation, completeMachineRotation]) {
      await NOUNS['machine']?.rotate(deps, from.id, { overlapSeconds: 60 });
      await end(deps, admin, from.id);
    }
    expect(await ask(deps, token, to.id)).toMatchObject({ valid: true });
  });

  it('verify answers expired for an old API key value at the end of its overlap, revoked if it was compromised', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }),
    );
    const rotated = await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, overlapSeconds: 60 }));
    deps.clock.now += 59_999;
    expect(await ask(deps, secret)).toMatchObject({ valid: true, expiresAt: deps.clock.now + 1 });
    deps.clock.now += 1;
    expect(await ask(deps, secret)).toMatchObject({ valid: false, reason: 'expired' });
    await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, compromised: true }));
    expect(await ask(deps, rotated.secret ?? '')).toMatchObject({ valid: false, reason: 'revoked' });
  });

  it('the usage of both values of an API key is counted as one', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }),
    );
    const rotated = await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, overlapSeconds: 60 }));
    for (const value of [secret, rotated.secret ?? '']) await ask(deps, value);
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.usage).where(eq(tables.usage.credential_id, id));
    expect(rows).toMatchObject([{ valid_count: 2, refused_count: 0 }]);
    expect(await getApiKey(deps, { id })).toMatchObject({ lastUsedAt: deps.clock.now });
  });

  it('an API key shows how the value begins that it has now', async () => {
    const deps = await openTestDeps(dialect);
    const { id, start } = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }),
    );
    const rotated = await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, overlapSeconds: 60 }));
    expect(rotated.start).toBe(rotated.secret?.slice(0, 9));
    expect(await getApiKey(deps, { id })).toMatchObject({ start: rotated.start });
    expect(await cancelApiKeyRotation(deps, admin, id)).toMatchObject({ start });
  });

  it('a revoked secret key is not rotated, and revoking it in an overlap revokes both values', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await createSecretKey(
      deps,
      admin,
      createSecretKeyInput.parse({ name: 'ci', role: 'read' }),
    );
    const rotated = await rotateSecretKey(deps, admin, rotateSecretKeyInput.parse({ id }));
    expect(rotated.previousExpiresAt).toBe(deps.clock.now + 3_600_000);
    expect(await revokeSecretKey(deps, admin, { id })).toMatchObject({ start: rotated.start });
    for (const value of [secret, rotated.secret ?? ''])
      expect(await findCaller(deps, value, anywhere)).toBeNull();
    for (const refused of [
      () => rotateSecretKey(deps, admin, rotateSecretKeyInput.parse({ id })),
      () => cancelSecretKeyRotation(deps, admin, id),
    ])
      await expect(refused()).rejects.toMatchObject({ code: 'already_revoked' });
  });

  it('rotating a secret key makes nothing of a hash that a writer to the database put there', async () => {
    const deps = await openTestDeps(dialect);
    const input = (role: string) => createSecretKeyInput.parse({ name: role, role });
    const { id, secret = '' } = await createSecretKey(deps, admin, input('admin'));
    const { secrets } = deps.store.read.tables;
    const forged = `sk_${'f'.repeat(40)}`;
    const forge = { hash: deps.keyring.hash(forged) };
    await deps.store.tx((tx) => tx.db.update(secrets).set(forge).where(eq(secrets.owner_id, id)));
    const rotated = await rotateSecretKey(deps, admin, rotateSecretKeyInput.parse({ id }));
    expect(rotated.previousExpiresAt).toBeNull();
    expect(await findCaller(deps, forged, anywhere)).toBeNull();
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    expect(await findCaller(deps, rotated.secret ?? '', anywhere)).toMatchObject({ id });
  });
});
