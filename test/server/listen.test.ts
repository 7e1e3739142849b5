import { expect, it, vi } from 'vitest';
import type { Countersign } from '../../client/index.ts';
import { listEvents, listEventsInput } from '../../server/domain/events.ts';
import { createMachine, createMachineInput } from '../../server/domain/machines.ts';
import { listen } from '../../server/listen.ts';
import { callerWith, openTestDeps } from '../support/deps.ts';
import { startReceiver, verifySignature } from '../support/receiver.ts';

it('listen() posts what happens from then on, signed by the secret it shows, until it is told to end', async () => {
  const deps = await openTestDeps('sqlite');
  const happen = (name: string) =>
    createMachine(deps, callerWith('admin'), createMachineInput.parse({ name }));
  const countersign = {
    events: { list: (input: object) => listEvents(deps, listEventsInput.parse(input)) },
  } as unknown as Countersign;
  for (const name of ['a', 'b', 'c']) await happen(name);
  const receiver = await startReceiver(() => (receiver.received.length === 1 ? 500 : 200));
  const notes: string[] = [];
  const ending = new AbortController();
  const ended = listen(countersign, {
    forwardTo: receiver.url,
    signal: ending.signal,
    note: (text) => void notes.push(text),
  });
  await vi.waitFor(() => expect(notes).toHaveLength(2));
  const secret = /whsec_\S+/.exec(notes[1] ?? '')?.[0] ?? '';

  for (const name of ['d', 'e']) await happen(name);
  await receiver.arrived(2);
  expect(receiver.received.map(({ payload }) => payload.data['name'])).toEqual(['d', 'e']);
  for (const received of receiver.received) verifySignature(secret, received);
  await vi.waitFor(() => expect(notes).toHaveLength(4));
  expect(notes[2]).toMatch(/machine\.created evt_\w+: 500$/);
  expect(notes[3]).toMatch(/machine\.created evt_\w+: 200$/);
  await receiver.down();
  await happen('f');
  await vi.waitFor(() => expect(notes[4]).toMatch(/no answer \(ECONNREFUSED\)$/), { timeout: 5_000 });
  ending.abort();
  expect(await ended).toEqual({ delivered: 1, failed: 2 });
});
