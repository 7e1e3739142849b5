import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import type { Caller } from '../../../server/deps.ts';
import { createApiKey, createApiKeyInput } from '../../../server/domain/api-keys.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import { reportUsage, reportUsageInput } from '../../../server/domain/reported-usage.ts';
import {
  usageOfApiKeys,
  usageOfApiKeysInput,
  usageOfSubjects,
  usageOfSubjectsInput,
} from '../../../server/domain/usage-reports.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';

const HOUR = 3_600_000;
const verifier = callerWith('verify');

let made = 0;
const newKey = (deps: TestDeps, subject: string) =>
  createApiKey(deps, callerWith('admin'), createApiKeyInput.parse({ name: `key-${++made}`, subject }));

const hourOf = (deps: TestDeps) => Math.floor(deps.clock.now / HOUR);

let batches = 0;
const report = (
  deps: TestDeps,
  counts: object[],
  { batchId = `b-${++batches}`, by = verifier as Caller } = {},
) => reportUsage(deps, by, reportUsageInput.parse({ batchId, counts }));

async function usedOf(deps: TestDeps, id: string) {
  const { data } = await usageOfApiKeys(deps, usageOfApiKeysInput.parse({ ids: [id] }));
  return data[0]?.usage.map(({ valid, refused }) => [valid, refused]) ?? [];
}

async function lastUseOf(deps: TestDeps, id: string) {
  const { apiKeys } = deps.store.read.tables;
  const [row] = await deps.store.read.db.select().from(apiKeys).where(eq(apiKeys.id, id));
  return row?.last_used_at;
}

describeOnEachDialect('reportUsage()', (dialect) => {
  it('adds to a key and to its subject, and moves its last use forward and never back', async () => {
    const deps = await openTestDeps(dialect);
    const [one, two] = [await newKey(deps, 'user_1'), await newKey(deps, 'user_1')];
    const hour = hourOf(deps);
    const at = deps.clock.now - 5_000;
    const counts = [
      { kind: 'api_key', id: one.id, hour, valid: 3, refused: 1, lastUsedAt: at },
      { kind: 'api_key', id: two.id, hour, valid: 2, refused: 0, lastUsedAt: deps.clock.now + HOUR },
    ];
    expect(await report(deps, counts)).toEqual({ counted: 2, ignored: 0 });
    expect(await report(deps, [{ ...counts[0], lastUsedAt: at - 1 }])).toEqual({ counted: 1, ignored: 0 });
    expect(await usedOf(deps, one.id)).toEqual([[6, 2]]);
    expect(await usedOf(deps, two.id)).toEqual([[2, 0]]);
    expect(await lastUseOf(deps, one.id)).toBe(at);
    expect(await lastUseOf(deps, two.id)).toBe(deps.clock.now);
    const { data } = await usageOfSubjects(deps, usageOfSubjectsInput.parse({ subjects: ['user_1'] }));
    expect(data[0]?.usage).toMatchObject([{ valid: 8, refused: 2 }]);
  });

  it('counts a report once, however often it is sent, also at the same time', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newKey(deps, 'user_2');
    const counts = [{ kind: 'api_key', id, hour: hourOf(deps), valid: 1, refused: 0 }];
    const sent = await Promise.all(
      Array.from({ length: 5 }, () => report(deps, counts, { batchId: 'same' })),
    );
    expect(new Set(sent.map((answer) => JSON.stringify(answer)))).toEqual(
      new Set(['{"counted":1,"ignored":0}']),
    );
    expect(await usedOf(deps, id)).toEqual([[1, 0]]);
    await expect(report(deps, [{ ...counts[0], valid: 2 }], { batchId: 'same' })).rejects.toMatchObject({
      code: 'idempotency_conflict',
    });
    // Another caller's name is another name.
    const principal = { ...verifier.principal, id: 'key_of_another' } as Caller['principal'];
    await report(deps, counts, { batchId: 'same', by: { ...verifier, principal } });
    expect(await usedOf(deps, id)).toEqual([[2, 0]]);
  });

  it('ignores what is not there, and hours that are long gone or to come', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await newKey(deps, 'user_3');
    const hour = hourOf(deps);
    const count = (more: object) => ({ kind: 'api_key', id, hour, valid: 1, refused: 0, ...more });
    const ofNobody = `ak_${'0'.repeat(32)}`;
    expect(
      await report(deps, [
        count({ id: ofNobody }),
        count({ hour: hour - 49 }),
        count({ hour: hour + 2 }),
        count({ hour: hour - 48 }),
        count({}),
        { kind: 'm2m_token', id: `mt_${'0'.repeat(32)}`, hour, valid: 1, refused: 0 },
      ]),
    ).toEqual({ counted: 2, ignored: 4 });
    const { usage } = deps.store.read.tables;
    const rows = await deps.store.read.db.select().from(usage);
    expect(new Set(rows.map((row) => row.credential_id))).toEqual(new Set([id]));
  });

  it('takes from a machine only what is of tokens addressed to it, and of keys if it may verify them', async () => {
    const deps = await openTestDeps(dialect);
    const sender = await newMachine(deps, 'sender');
    const receiver = await newMachine(deps, 'receiver');
    const trusted = await newMachine(deps, 'trusted', { mayVerify: true });
    await allow(deps, sender.id, receiver.id);
    const token = await createM2mToken(deps, sender.caller, createM2mTokenInput.parse({}));
    const key = await newKey(deps, 'user_4');
    const hour = hourOf(deps);
    const counts = [
      { kind: 'm2m_token', id: token.id, hour, valid: 1, refused: 0 },
      { kind: 'api_key', id: key.id, hour, valid: 1, refused: 0 },
    ];
    expect(await report(deps, counts, { by: receiver.caller })).toEqual({ counted: 1, ignored: 1 });
    expect(await report(deps, counts, { by: trusted.caller })).toEqual({ counted: 1, ignored: 1 });
    expect(await report(deps, counts, { by: sender.caller })).toEqual({ counted: 0, ignored: 2 });
    expect(await usedOf(deps, key.id)).toEqual([[1, 0]]);
  });

  it.each([
    ['no counts', { batchId: 'x', counts: [] }],
    [
      'too many',
      {
        batchId: 'x',
        counts: Array.from({ length: 101 }, (_, hour) => ({
          kind: 'api_key',
          id: `ak_${'0'.repeat(32)}`,
          hour,
          valid: 0,
          refused: 0,
        })),
      },
    ],
    [
      'an hour twice',
      {
        batchId: 'x',
        counts: [1, 2].map((valid) => ({
          kind: 'api_key',
          id: `ak_${'0'.repeat(32)}`,
          hour: 1,
          valid,
          refused: 0,
        })),
      },
    ],
    [
      'less than none',
      {
        batchId: 'x',
        counts: [{ kind: 'api_key', id: `ak_${'0'.repeat(32)}`, hour: 1, valid: -1, refused: 0 }],
      },
    ],
    [
      'an id of another kind',
      {
        batchId: 'x',
        counts: [{ kind: 'm2m_token', id: `ak_${'0'.repeat(32)}`, hour: 1, valid: 1, refused: 0 }],
      },
    ],
    [
      'a name with spaces',
      {
        batchId: 'x y',
        counts: [{ kind: 'api_key', id: `ak_${'0'.repeat(32)}`, hour: 1, valid: 1, refused: 0 }],
      },
    ],
  ])('refuses %s', (_, input) => {
    expect(reportUsageInput.safeParse(input).success).toBe(false);
  });
});
