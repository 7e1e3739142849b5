import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import { readStanding } from '../../../server/domain/standing.ts';
import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
} from '../../../server/domain/webhook-endpoints.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const HOUR = 3_600_000;

async function open(...options: Parameters<typeof openTestDeps>): Promise<TestDeps> {
  const deps = await openTestDeps(...options);
  return { ...deps, outbound: { ...deps.outbound, refusal: () => null } };
}

const subscribe = async (deps: TestDeps) =>
  (
    await createWebhookEndpoint(
      deps,
      callerWith('admin'),
      createWebhookEndpointInput.parse({ url: 'https://example.com' }),
    )
  ).id;

let seq = 0;

/** Deliveries owed to an endpoint, made out some hours ago, and due in some hours. */
async function owe(deps: TestDeps, endpointId: string, count: number, ageHours: number, dueInHours: number) {
  const { now } = deps.clock;
  await deps.store.tx(async ({ db, tables: { deliveries } }) => {
    for (let i = 0; i < count; i += 500)
      await db.insert(deliveries).values(
        Array.from({ length: Math.min(500, count - i) }, () => ({
          id: `dlv_${++seq}`,
          event_seq: seq,
          endpoint_id: endpointId,
          state: 'pending' as const,
          priority: seq % 2,
          attempt: 0,
          next_at: now + dueInHours * HOUR,
          created_at: now - ageHours * HOUR,
        })),
      );
  });
}

const change = (deps: TestDeps, id: string, changes: { enabled?: boolean; throttled_until?: number }) =>
  deps.store.tx(async ({ db, tables: { webhookEndpoints: w } }) => {
    await db.update(w).set(changes).where(eq(w.id, id));
  });

const standing = async (deps: TestDeps) => {
  const { pending, oldestPendingMs } = await readStanding(deps);
  return { ...pending, oldestHours: oldestPendingMs / HOUR };
};

describeOnEachDialect('readStanding()', (dialect) => {
  it('counts as due what may be sent now, and all else that is owed as waiting', async () => {
    const deps = await open(dialect);
    expect(await standing(deps)).toEqual({ due: 0, waiting: 0, oldestHours: 0 });
    const [one, busy, disabled] = [await subscribe(deps), await subscribe(deps), await subscribe(deps)];
    await owe(deps, one, 3, 1, 0);
    await owe(deps, one, 2, 2, 1);
    await owe(deps, busy, 4, 3, 0);
    await owe(deps, disabled, 5, 4, 0);
    await change(deps, busy, { throttled_until: deps.clock.now + HOUR });
    await change(deps, disabled, { enabled: false });
    expect(await standing(deps)).toEqual({ due: 3, waiting: 11, oldestHours: 3 });
    deps.clock.now += HOUR;
    expect(await standing(deps)).toEqual({ due: 9, waiting: 5, oldestHours: 4 });
  });

  it('counts what is due beside what a disabled endpoint is owed, and no further than 10,000', async () => {
    const deps = await open(dialect);
    const [disabled, one] = [await subscribe(deps), await subscribe(deps)];
    await change(deps, disabled, { enabled: false });
    await owe(deps, disabled, 10_500, 9, 0);
    await owe(deps, one, 3, 1, 0);
    expect(await standing(deps)).toEqual({ due: 3, waiting: 9_997, oldestHours: 1 });
    await owe(deps, one, 10_500, 1, 0);
    expect(await standing(deps)).toEqual({ due: 10_000, waiting: 0, oldestHours: 1 });
  });
});

describe('readStanding() on SQLite', () => {
  it('sorts nothing, and finds what is due by the whole of its index', async () => {
    const deps = await open('sqlite');
    const statements = await statementsOf(deps, () => readStanding(deps));
    const statement = statements.find((text) => text.includes('throttled_until')) ?? '';
    const plan = planOf(deps, statement).join('\n');
    expect(plan).toContain('deliveries_owed (endpoint_id=? AND priority=? AND next_at<?)');
    expect(plan).not.toContain('TEMP B-TREE');
  });
});
