import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type RunningServer, send, startServer } from '../support/server.ts';
import { smallDisk, whyNoSmallDisk } from '../support/small-disk.ts';

const missing = whyNoSmallDisk();
const RESERVE_BYTES = 16 * 1024 * 1024;
const MANY = 200;
const WAITS = { timeout: 10_000 };

async function done(server: RunningServer, path: string, input: unknown) {
  const { body } = await server.call(path, input);
  expect(body.error).toBeUndefined();
  return body.result.data;
}

const refusal = async (server: RunningServer, path: string, input: unknown, credential?: string) => {
  const { status, body } = await server.call(path, input, credential);
  return [status, body.error?.data.code];
};

async function verify(server: RunningServer, credential: string, cost = 0) {
  const { status, body } = await send(`${server.url}/v1/verify`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ credential, cost }),
  });
  return { status, ...body };
}

const newKey = (server: RunningServer, name: string, more: object = {}) =>
  done(server, 'apiKeys.create', { name, subject: 'user_1', ...more });

describe.skipIf(missing !== null)(
  `a server whose disk is full${missing === null ? '' : ` [skipped: ${missing}]`}`,
  () => {
    it('verifies, revokes and disables, refuses all else with storage_full, and is itself again when there is room', async () => {
      const disk = smallDisk(64);
      const server = await startServer(disk.folder, { COUNTERSIGN_LOG_LEVEL: 'error' });
      const [stays, revoked, disabled, limited] = [
        await newKey(server, 'stays', { rateLimit: { count: 1, windowSeconds: 60 } }),
        await newKey(server, 'revoked'),
        await newKey(server, 'disabled'),
        await newKey(server, 'limited', { credits: { remaining: 5 } }),
      ];
      const many: { id: string }[] = [];
      for (let i = 0; i < MANY; i++) many.push(await newKey(server, `many ${i}`));
      const machine = await done(server, 'machines.create', { name: 'billing' });
      // What it is owed is written out once there is room: none of the reserve is spent on that.
      const url = 'http://127.0.0.1:65000/hook';
      const { id: endpointId } = await done(server, 'webhookEndpoints.create', {
        url,
        eventTypes: ['api_key.*'],
      });

      disk.fill();
      await done(server, 'apiKeys.revoke', { id: revoked.id });
      await done(server, 'apiKeys.disable', { id: disabled.id });
      expect(await verify(server, revoked.secret)).toMatchObject({ valid: false, reason: 'revoked' });
      expect(await verify(server, disabled.secret)).toMatchObject({ valid: false, reason: 'disabled' });
      expect(await verify(server, stays.secret)).toMatchObject({ valid: true });
      expect(await verify(server, stays.secret)).toMatchObject({ valid: false, reason: 'rate_limited' });

      const refused = [503, 'storage_full'];
      // SQLite's log, which is written over again and again, has some room left.
      while (!(await isFull(server))) await server.call('machines.create', { name: `${Math.random()}` });
      expect(await refusal(server, 'machines.create', { name: 'ledger' })).toEqual(refused);
      expect(await refusal(server, 'm2mTokens.create', {}, machine.secret)).toEqual(refused);
      expect(await verify(server, limited.secret, 1)).toMatchObject({
        status: 503,
        errors: [{ code: 'storage_full' }],
      });
      const answers = await Promise.all(many.map(({ id }) => server.call('apiKeys.revoke', { id })));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));

      expect(await server.stop()).toBe(0);
      const restarted = await startServer(disk.folder, { COUNTERSIGN_LOG_LEVEL: 'error' });
      await done(restarted, 'machines.disable', { id: machine.id });
      expect(await verify(restarted, revoked.secret)).toMatchObject({ valid: false, reason: 'revoked' });
      expect(await refusal(restarted, 'machines.create', { name: 'ledger' })).toEqual(refused);

      disk.makeRoom();
      await done(restarted, 'machines.create', { name: 'ledger' });
      await expect
        .poll(
          async () => (await done(restarted, 'deliveries.list', { endpointId, limit: 500 })).data.length,
          WAITS,
        )
        .toBe(MANY + 2);
      expect(await verify(restarted, limited.secret, 1)).toMatchObject({ valid: true, creditsRemaining: 4 });
      expect(await send(`${restarted.url}/readyz`)).toMatchObject({ status: 200, body: { degraded: null } });
      expect(statSync(join(disk.folder, 'countersign.db.reserve')).size).toBe(RESERVE_BYTES);
    }, 60_000);
  },
);

async function isFull(server: RunningServer): Promise<boolean> {
  const { status, body } = await send(`${server.url}/readyz`);
  return status === 503 && /The disk is full/.test(body.degraded);
}
