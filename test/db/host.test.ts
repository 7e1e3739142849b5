import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openStore, type Store, storeFailure } from '../../db/store.ts';
import { freshDatabase } from '../support/deps.ts';
import { addRow, rowIds } from './rows.ts';

async function openOn(location: string, id: string, onLost = () => {}): Promise<Store> {
  const store = await openStore({ location, host: { id, onLost } });
  onTestFinished(() => store.close());
  await store.migrate();
  return store;
}

describe('a SQLite file', () => {
  it('that a host is using is refused to another, and not to a second process of that host', async () => {
    const location = await freshDatabase('sqlite');
    const first = await openOn(location, 'host-a');
    await openOn(location, 'host-a');
    const refusal = await openOn(location, 'host-b').catch((error: unknown) => error);
    expect(storeFailure(refusal)).toBe('unavailable');
    expect(String(refusal)).toMatch(/Another host, '\S+', is using this SQLite file/);
    expect(readFileSync(`${location}.host`, 'utf8')).toMatch(/^host-a /);
    await first.tx((tx) => addRow(tx, 'goes on'));
  });

  it('whose mark is just being made by one host is refused to another, and not to a second process of that host', async () => {
    const location = await freshDatabase('sqlite');
    writeFileSync(`${location}.host`, '');
    const others = Promise.allSettled([openOn(location, 'host-b'), openOn(location, 'host-a')]);
    await sleep(100);
    const mark = `host-a elsewhere ${'0'.repeat(16)}`;
    writeFileSync(`${location}.host`, mark);
    const [other, own] = await others;
    expect(other).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } });
    expect(own).toMatchObject({ status: 'fulfilled' });
    expect(readFileSync(`${location}.host`, 'utf8')).toMatch(/^host-a /);
  });

  it('is the last host’s of all that watched the mark of one that is gone', async () => {
    const location = await freshDatabase('sqlite');
    const markOf = (id: string) => writeFileSync(`${location}.host`, `${id} elsewhere ${'0'.repeat(16)}`);
    markOf('host-gone');
    const refusal = openOn(location, 'host-a').catch((error: unknown) => error);
    const readMark = () => readFileSync(`${location}.host`, 'utf8');
    await vi.waitFor(() => expect(readMark()).toMatch(/^host-a /), { timeout: 10_000, interval: 20 });
    markOf('host-b');
    expect(storeFailure(await refusal)).toBe('unavailable');
    expect(readMark()).toMatch(/^host-b /);
  }, 15_000);

  it('is another host’s once it was still for some seconds, and who had it is told that it is lost', async () => {
    const location = await freshDatabase('sqlite');
    const before = await openStore({ location, host: { id: 'host-a', onLost: () => {} } });
    await before.migrate();
    await before.tx((tx) => addRow(tx, 'a'));
    await before.close();
    const onLost = vi.fn();
    const [after] = await Promise.all([openOn(location, 'host-b', onLost), openOn(location, 'host-b')]);
    expect(await rowIds(after)).toEqual(['a']);
    expect(onLost).not.toHaveBeenCalled();

    // As if this one had been stopped for a while, and a third host begun meanwhile.
    const mark = readFileSync(`${location}.host`, 'utf8');
    writeFileSync(`${location}.host`, mark.replace('host-b', 'host-c'));
    await vi.waitFor(() => expect(onLost).toHaveBeenCalled(), { timeout: 5_000 });
    expect(readFileSync(`${location}.host`, 'utf8')).toMatch(/^host-c /);
  });
});
