/** Machines and the ways between them, for tests that need some and are not about them. */
import { and, eq } from 'drizzle-orm';
import type { Caller } from '../../server/deps.ts';
import { createMachine, createMachineInput } from '../../server/domain/machines.ts';
import { findCaller } from '../../server/domain/secrets.ts';
import { anywhere, callerWith, type TestDeps } from './deps.ts';

export interface TestMachine {
  id: string;
  secret: string;
  /** The machine as the authenticator would have made it. */
  caller: Caller;
}

export async function newMachine(
  deps: TestDeps,
  name: string,
  options: { mayVerify?: boolean } = {},
): Promise<TestMachine> {
  const input = createMachineInput.parse({ name, ...options });
  const { id, secret = '' } = await createMachine(deps, callerWith('admin'), input);
  const principal = await findCaller(deps, secret, anywhere);
  if (!principal) throw new Error(`The machine '${name}' is not recognised by its secret`);
  return { id, secret, caller: { principal, requestId: 'req_test' } };
}

/** Lets one machine call another, with these scopes. */
export async function allow(deps: TestDeps, from: string, to: string, scopes: string[] = []): Promise<void> {
  const now = deps.now();
  await deps.store.tx(async ({ db, tables }) => {
    await db
      .insert(tables.machineScopes)
      .values({ from_machine_id: from, to_machine_id: to, scopes, created_at: now, updated_at: now });
  });
}

/** Takes that back. */
export async function forbid(deps: TestDeps, from: string, to: string): Promise<void> {
  await deps.store.tx(async ({ db, tables: { machineScopes: e } }) => {
    await db.delete(e).where(and(eq(e.from_machine_id, from), eq(e.to_machine_id, to)));
  });
}
