import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../db/store.ts';
import { change } from '../../server/domain/events.ts';
import { openInstallation } from '../../server/domain/installation.ts';
import { callerWith, describeOnEachDialect, freshDatabase, MASTER_KEY } from '../support/deps.ts';

describeOnEachDialect('store.onChange() and store.onAppend()', (dialect) => {
  async function setup() {
    const location = await freshDatabase(dialect);
    const [one, other] = await Promise.all([openStore({ location }), openStore({ location })]);
    onTestFinished(async () => {
      await Promise.all([one.close(), other.close()]);
    });
    await one.migrate();
    const now = Date.now;
    const { keyring } = await openInstallation(one, { masterKey: MASTER_KEY, signingAlg: 'ES256', now });
    const append = (store: typeof one, fails = false) =>
      change({ store, keyring, now, wake: () => {} } as never, callerWith('admin'), async () => {
        if (fails) throw new Error('It failed');
        return { result: null, event: { type: 'machine.updated', objectId: 'mch_1' } };
      });
    return { one, other, append };
  }

  it('tells of what this store appends, and of what another does, until it is ended', async () => {
    const { one, other, append } = await setup();
    let calls = 0;
    const stop = one.onChange(() => {
      calls++;
    });
    // The first connection that listens, and the first version that is seen.
    await sleep(200);
    for (const store of [one, other]) {
      const before = calls;
      await append(store);
      await expect.poll(() => calls).toBeGreaterThan(before);
    }
    stop();
    const before = calls;
    await append(one);
    await append(other);
    await sleep(150);
    expect(calls).toBe(before);
  });

  // On PostgreSQL it takes a connection before anything is heard.
  if (dialect === 'sqlite')
    it('tells of what another appends from the first moment on', async () => {
      const { one, other, append } = await setup();
      let calls = 0;
      one.onChange(() => {
        calls++;
      });
      await append(other);
      await expect.poll(() => calls).toBeGreaterThan(0);
    });

  it('calls within the transaction that appends, on SQLite alone, until it is ended', async () => {
    const { one, other, append } = await setup();
    const heard: string[] = [];
    const joining: Promise<void>[] = [];
    // No time passes, or the batch might take no more transactions.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    onTestFinished(() => clock.mockRestore());
    const stop = one.onAppend(() => {
      heard.push('appended');
      joining.push(
        one.tx(async ({ db, tables: { events } }) => void heard.push(`${await db.$count(events)}`)),
      );
    });
    await append(one);
    // Its transaction ran before the first was answered, and saw the event.
    expect(heard).toEqual(dialect === 'sqlite' ? ['appended', '2'] : []);
    await append(other);
    stop();
    await append(one);
    await Promise.all(joining);
    expect(heard).toHaveLength(dialect === 'sqlite' ? 2 : 0);
  });

  it('tells two who listen, and the one that stays when the other goes', async () => {
    const { one, append } = await setup();
    const calls = { a: 0, b: 0 };
    const stopA = one.onChange(() => calls.a++);
    one.onChange(() => calls.b++);
    await sleep(200);
    stopA();
    const { a, b } = { ...calls };
    await append(one);
    await expect.poll(() => calls.b).toBeGreaterThan(b);
    expect(calls.a).toBe(a);
  });

  it('does not tell of a transaction that failed', async () => {
    const { one, append } = await setup();
    let calls = 0;
    one.onChange(() => {
      calls++;
    });
    await sleep(200);
    calls = 0;
    await expect(append(one, true)).rejects.toThrow('It failed');
    await sleep(100);
    expect(calls).toBe(0);
  });
});
