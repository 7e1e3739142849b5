/** What verification reads beside the credential: limits, credits, CIDR blocks, the subject, the shape of the value. */
import { createHash, randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import { authorize } from '../../../server/authenticate.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import { importApiKeys, importApiKeysInput } from '../../../server/domain/api-key-imports.ts';
import { createApiKey, createApiKeyInput } from '../../../server/domain/api-keys.ts';
import { type Authorize, verify, verifyBatch, verifyInput } from '../../../server/domain/credentials.ts';
import { createKeyPrefix } from '../../../server/domain/key-shapes.ts';
import { createMachine, createMachineInput } from '../../../server/domain/machines.ts';
import { createSecretKey, createSecretKeyInput } from '../../../server/domain/secret-keys.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import { setSubject, setSubjectCredits, setSubjectEnabled } from '../../../server/domain/subjects.ts';
import { call } from '../../support/calls.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');
const asVerifier: Authorize = (principal) => authorize(principal, 'credentials.verify', true);

const ask = (deps: TestDeps, credential: string, rest: Record<string, unknown> = {}) =>
  verify(deps, presented(deps.adminKey), verifyInput.parse({ credential, ...rest }), asVerifier);

let names = 0;

async function newKey(deps: TestDeps, input: Record<string, unknown> = {}) {
  const given = { name: `key ${names++}`, subject: 'user_1', ...input };
  const { secret = '', ...key } = await createApiKey(deps, admin, createApiKeyInput.parse(given));
  return { ...key, value: secret };
}

describeOnEachDialect('what verify() reads beside the credential', (dialect) => {
  it('lets exactly as many of 1,000 concurrent verifications pass as the limit of the key says', async () => {
    const deps = await openTestDeps(dialect);
    const { value, id } = await newKey(deps, { rateLimit: { count: 100, windowSeconds: 60 } });
    const answers = await Promise.all(Array.from({ length: 1_000 }, () => ask(deps, value)));
    expect(answers.filter(({ valid }) => valid)).toHaveLength(100);
    const refused = answers.filter((answer) => !answer.valid);
    for (const answer of refused)
      expect(answer).toEqual({
        valid: false,
        reason: 'rate_limited',
        id,
        subject: 'user_1',
        retryAfterMs: expect.any(Number),
      });
    deps.clock.now += 60_000;
    expect(await ask(deps, value)).toMatchObject({
      valid: true,
      rateLimit: { count: 100, windowSeconds: 60, remaining: 99 },
    });
  });

  it('counts all keys of a subject against its limit, and what a key refuses against none of the others', async () => {
    const deps = await openTestDeps(dialect);
    await setSubject(deps, admin, { id: 'user_1', rateLimit: { count: 5, windowSeconds: 60 } });
    const narrow = await newKey(deps, { rateLimit: { count: 1, windowSeconds: 60 } });
    const wide = await newKey(deps);
    const other = await newKey(deps, { subject: 'user_2' });
    for (let i = 0; i < 10; i++) await ask(deps, narrow.value);
    const answers = [];
    for (let i = 0; i < 6; i++) answers.push((await ask(deps, wide.value)).valid);
    expect(answers).toEqual([true, true, true, true, false, false]);
    expect(await ask(deps, other.value)).toMatchObject({ valid: true });
  });

  it('takes the cost from the credits of the key and of its subject, and nothing when either has too few', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await newKey(deps, { credits: { remaining: 10 } });
    expect(await ask(deps, value, { cost: 4 })).toMatchObject({ valid: true, creditsRemaining: 6 });
    expect(await ask(deps, value)).toMatchObject({ valid: true, creditsRemaining: 5 });
    expect(await ask(deps, value, { cost: 0 })).toMatchObject({ valid: true, creditsRemaining: 5 });
    await setSubjectCredits(deps, admin, { id: 'user_1', remaining: 2 });
    expect(await ask(deps, value, { cost: 3 })).toMatchObject({ valid: false, reason: 'out_of_credits' });
    expect(await ask(deps, value, { cost: 2 })).toMatchObject({ valid: true, creditsRemaining: 0 });
    expect(await ask(deps, value)).toMatchObject({ valid: false, reason: 'out_of_credits' });
    expect(await ask(deps, value, { cost: 0 })).toMatchObject({ valid: true });
  });

  it('spends no credits on what it refuses for another reason', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await newKey(deps, { credits: { remaining: 1 }, scopes: ['read'] });
    for (let i = 0; i < 3; i++)
      expect(await ask(deps, value, { scopes: ['write'] })).toMatchObject({ reason: 'insufficient_scope' });
    expect(await ask(deps, value)).toMatchObject({ valid: true, creditsRemaining: 0 });
  });

  it('answers disabled for every key of a disabled subject, on a node that has it in no memory, until it is enabled', async () => {
    const deps = await openTestDeps(dialect);
    const { value, id } = await newKey(deps);
    expect(await ask(deps, value)).toMatchObject({ valid: true });
    await setSubjectEnabled(deps, admin, { id: 'user_1' }, false);
    expect(await ask(deps, value)).toEqual({ valid: false, reason: 'disabled', id, subject: 'user_1' });
    await setSubjectEnabled(deps, admin, { id: 'user_1' }, true);
    expect(await ask(deps, value)).toMatchObject({ valid: true });
  });

  it('wants the address of the end client of a key with CIDR blocks, and in one of them', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await newKey(deps, { allowedCidrs: ['192.0.2.0/24', '2001:db8::/32'] });
    for (const ip of ['192.0.2.9', '::ffff:192.0.2.9', '2001:db8::9'])
      expect(await ask(deps, value, { ip })).toMatchObject({ valid: true });
    for (const ip of [undefined, '198.51.100.1', '2001:db9::9'])
      expect(await ask(deps, value, ip === undefined ? {} : { ip })).toMatchObject({
        valid: false,
        reason: 'ip_not_allowed',
      });
  });

  it('knows a caller with CIDR blocks only from within them, whatever the end client’s address is', async () => {
    const deps = await openTestDeps(dialect);
    const allowedCidrs = ['192.0.2.0/24'];
    const key = await createSecretKey(
      deps,
      admin,
      createSecretKeyInput.parse({ name: 'gateway', role: 'verify', allowedCidrs }),
    );
    const machine = await createMachine(deps, admin, createMachineInput.parse({ name: 'a', allowedCidrs }));
    const { value } = await newKey(deps);
    for (const secret of [key.secret ?? '', machine.secret ?? '']) {
      expect(await findCaller(deps, secret, () => '192.0.2.1')).not.toBeNull();
      expect(await findCaller(deps, secret, () => '::ffff:192.0.2.1')).not.toBeNull();
      expect(await findCaller(deps, secret, () => '198.51.100.1')).toBeNull();
    }
    const from = (address: string) => ({ value: key.secret ?? '', address: () => address });
    const input = verifyInput.parse({ credential: value, ip: '192.0.2.1' });
    expect(await verify(deps, from('192.0.2.1'), input, asVerifier)).toMatchObject({ valid: true });
    await expect(verify(deps, from('198.51.100.1'), input, asVerifier)).rejects.toMatchObject({
      code: 'unauthenticated',
    });
    await expect(
      verifyBatch(deps, from('198.51.100.1'), { items: [input] }, asVerifier),
    ).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('a secret key whose CIDR blocks a writer to the database took away is nobody’s', async () => {
    const deps = await openTestDeps(dialect);
    const { secret = '', id } = await createSecretKey(
      deps,
      admin,
      createSecretKeyInput.parse({ name: 'gateway', role: 'verify', allowedCidrs: ['192.0.2.0/24'] }),
    );
    expect(await findCaller(deps, secret, () => '192.0.2.1')).toMatchObject({ id });
    await deps.store.tx(({ db, tables }) => db.update(tables.secretKeys).set({ allowed_cidrs: null }));
    expect(await findCaller(deps, secret, () => '192.0.2.1')).toBeNull();
    expect(await findCaller(deps, secret, () => '198.51.100.1')).toBeNull();
  });

  it('verifies imported values of a registered shape, and no other value without our checksum', async () => {
    const deps = await openTestDeps(dialect);
    const value = `acme-${randomBytes(20).toString('hex')}`;
    const stranger = `acme-${randomBytes(20).toString('hex')}`;
    const hash = createHash('sha256').update(value).digest('hex');
    const items = [{ hash, subject: 'user_1', name: 'old', scopes: ['read'] }];
    expect(await ask(deps, value)).toEqual({ valid: false, reason: 'malformed' });
    await importApiKeys(deps, admin, importApiKeysInput.parse({ items, shapes: [{ prefix: 'acme-' }] }));
    expect(await ask(deps, value)).toMatchObject({ valid: true, subject: 'user_1', scopes: ['read'] });
    expect(await ask(deps, stranger)).toEqual({ valid: false, reason: 'unknown' });
    expect(await ask(deps, `other-${stranger}`)).toEqual({ valid: false, reason: 'malformed' });
    const { value: ours } = await newKey(deps);
    const mistyped = `${ours.slice(0, -1)}${ours.endsWith('a') ? 'b' : 'a'}`;
    expect(await ask(deps, mistyped)).toEqual({ valid: false, reason: 'malformed' });
    await expect(
      verify(deps, presented(value), verifyInput.parse({ credential: ours }), asVerifier),
    ).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('verifies values of a registered prefix, whose rotation keeps it', async () => {
    const deps = await openTestDeps(dialect);
    const made = newValue('acme_live_').value;
    expect(await ask(deps, made)).toEqual({ valid: false, reason: 'malformed' });
    await createKeyPrefix(deps, admin, { prefix: 'acme_live_' });
    expect(await ask(deps, made)).toEqual({ valid: false, reason: 'unknown' });
    await call(deps, deps.adminKey, 'keyPolicies.create', {
      name: 'live',
      prefix: 'acme_live_',
      isDefault: true,
    });
    const { value, id } = await newKey(deps);
    expect(value).toMatch(/^acme_live_/);
    expect(await ask(deps, value)).toMatchObject({ valid: true, id });
    const rotated = (await call(deps, deps.adminKey, 'apiKeys.rotate', { id })) as { secret: string };
    expect(rotated.secret).toMatch(/^acme_live_/);
    expect(await ask(deps, rotated.secret)).toMatchObject({ valid: true, id });
    expect(await ask(deps, value)).toMatchObject({ valid: false, reason: 'expired' });
  });

  it('counts a verification for the key and for its subject', async () => {
    const deps = await openTestDeps(dialect);
    const { value } = await newKey(deps);
    await ask(deps, value);
    await ask(deps, value, { scopes: ['admin'] });
    await deps.usage.flush(deps.store);
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.subjectUsage)).toMatchObject([
      { subject: 'user_1', valid_count: 1, refused_count: 1 },
    ]);
  });
});
