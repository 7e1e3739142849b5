import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import { webhookBodyOf } from '../../../server/domain/webhook-messages.ts';
import { call } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';

describeOnEachDialect('what a webhook endpoint is sent', (dialect) => {
  const open = async () => {
    const deps = await openTestDeps(dialect);
    /** Makes a change, and answers the data of the last event after it. */
    const sentOf = async (path: string, input: object) => {
      await call(deps, deps.adminKey, path, input);
      const [last] = (await listEvents(deps, { after: 0, limit: 1, newestFirst: true })).data;
      return last && JSON.parse(webhookBodyOf(last)).data;
    };
    return { deps, sentOf };
  };

  it('of a rotation says until when to deny tokens, if it revoked any', async () => {
    const { deps, sentOf } = await open();
    const { id: machineId } = await newMachine(deps, 'billing');
    const { objectId: applicationId } = await sentOf('oauthApplications.create', {
      name: 'notes',
      redirectUris: ['https://app.example/cb'],
    });
    for (const [path, id, selector] of [
      ['machines.rotateSecret', machineId, { machineId }],
      ['oauthApplications.rotateSecret', applicationId, { applicationId }],
    ] as const) {
      expect(await sentOf(path, { id, overlapSeconds: 0 })).not.toHaveProperty('denyUntil');
      expect(await sentOf(path, { id, compromised: true })).toMatchObject({ selector, denyUntil: null });
    }
  });

  it('of a machine scope says until when to deny, if something was taken from it', async () => {
    const { deps, sentOf } = await open();
    const edge = {
      fromMachineId: (await newMachine(deps, 'from')).id,
      toMachineId: (await newMachine(deps, 'to')).id,
    };
    await allow(deps, edge.fromMachineId, edge.toMachineId, ['read']);
    const left = (scopes: string[]) => sentOf('machineScopes.update', { ...edge, scopes });
    expect(await left(['read', 'write'])).not.toHaveProperty('denyUntil');
    expect(await left(['write', 'list'])).toMatchObject({ denyUntil: null });
    expect(await sentOf('machineScopes.delete', edge)).toMatchObject({ ...edge, denyUntil: null });
  });
});
