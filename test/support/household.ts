/** A server with one of everything that a key of ours protects, to ask later whether all of it still works. */
import { hash } from 'node:crypto';
import { expect } from 'vitest';
import { type Receiver, startReceiver, verifySignature } from './receiver.ts';
import { type Answer, type RunningServer, send } from './server.ts';

export interface Household {
  /** Values by what they are: those that are callers' own, and those that are verified. */
  callers: { readKey: string; billing: string; ledger: string };
  verified: { apiKeys: string[]; opaqueTokens: string[]; jwts: string[] };
  webhooks: { receiver: Receiver; secret: string; count: number };
}

export async function furnish(server: RunningServer): Promise<Household> {
  const create = (path: string, input: unknown) => answerOf(server.call(path, input));
  const receiver = await startReceiver();
  const [billing, ledger] = [
    await create('machines.create', { name: 'billing' }),
    await create('machines.create', { name: 'ledger', mayVerify: true }),
  ];
  await create('machineScopes.create', { fromMachineId: billing.id, toMachineId: ledger.id });
  const readKey = await create('secretKeys.create', { name: 'reader', role: 'read' });
  const eventTypes = ['api_key.created'];
  const endpoint = await create('webhookEndpoints.create', { url: receiver.url, eventTypes });
  const household = {
    callers: { readKey: readKey.secret, billing: billing.secret, ledger: ledger.secret },
    verified: { apiKeys: [], opaqueTokens: [], jwts: [] },
    webhooks: { receiver, secret: endpoint.secret, count: 0 },
  };
  await addValues(server, household);
  await importKey(server, household);
  return household;
}

/** A key of before this server, of which it is given only the SHA-256. */
async function importKey(server: RunningServer, { verified }: Household) {
  const value = 'legacy-0123456789';
  const item = { hash: hash('sha256', value), subject: 'user_1', name: 'imported' };
  await answerOf(server.call('apiKeys.import', { items: [item], shapes: [{ prefix: 'legacy-' }] }));
  verified.apiKeys.push(value);
}

async function answerOf(calling: Promise<Answer>) {
  const { status, body } = await calling;
  expect([status, body.error]).toEqual([200, undefined]);
  return body.result.data;
}

/** Makes more values that are verified. */
async function addValues(server: RunningServer, { callers, verified, webhooks }: Household) {
  const name = `ci ${verified.apiKeys.length}`;
  verified.apiKeys.push((await answerOf(server.call('apiKeys.create', { name, subject: 'user_1' }))).secret);
  for (const [format, values] of [
    ['opaque', verified.opaqueTokens],
    ['jwt', verified.jwts],
  ] as const) {
    const minting = server.call('m2mTokens.create', { format, ttlSeconds: 3600 }, callers.billing);
    values.push((await answerOf(minting)).token);
  }
  webhooks.count++;
}

/** Every value of before still does what it did; and so do new ones, which are there to be asked for the next time. */
export async function expectAllWorks(server: RunningServer, household: Household): Promise<void> {
  const { callers, verified, webhooks } = household;
  await addValues(server, household);
  expect((await server.call('secretKeys.list', {})).status).toBe(200);
  expect((await server.call('machines.list', {}, callers.readKey)).status).toBe(200);
  for (const [caller, values] of [
    [server.adminKey, verified.apiKeys],
    [callers.ledger, verified.opaqueTokens],
    [callers.ledger, verified.jwts],
  ] as const)
    for (const credential of values)
      expect(await verify(server, caller, credential)).toMatchObject({ valid: true });
  verifySignature(webhooks.secret, await webhooks.receiver.arrived(webhooks.count));
}

async function verify(server: RunningServer, caller: string, credential: string) {
  const { body } = await send(`${server.url}/v1/verify`, {
    method: 'POST',
    headers: { authorization: `Bearer ${caller}`, 'content-type': 'application/json' },
    body: JSON.stringify({ credential }),
  });
  return body;
}

/** Every value of which a hash is stored. */
export const hashedValues = ({ callers, verified }: Household): string[] => [
  ...Object.values(callers),
  ...verified.apiKeys,
  ...verified.opaqueTokens,
];
