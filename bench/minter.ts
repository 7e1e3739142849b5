/** A machine that may call another, and mint without end. */
import type { MeasuredServer } from './processes.ts';
import { post } from './requests.ts';

/** Answers its secret. */
export async function createMinter({ admin }: MeasuredServer): Promise<string> {
  const minter = await admin.machines.create({
    name: 'minter',
    mintsPerMinuteMax: 10_000_000,
    liveTokensMax: 100_000_000,
  });
  const called = await admin.machines.create({ name: 'called' });
  await admin.machineScopes.create({
    fromMachineId: minter.id,
    toMachineId: called.id,
    scopes: ['read', 'write'],
  });
  return minter.secret ?? '';
}

export const mintRequest = (secret: string, token: object = {}): Buffer =>
  post('/v1/m2m_tokens', secret, token);
