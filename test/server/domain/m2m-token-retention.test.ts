import { expect, it } from 'vitest';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import { BLOCK_HELD_MS_MAX, BLOCKS_OF_LIST } from '../../../server/domain/status-indexes.ts';
import { createLogger } from '../../../server/logger.ts';
import { m2mTokenSweep } from '../../../workers/m2m-token-sweep.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';

const DAY = 24 * 3_600_000;
const silent = createLogger('silent');

/** Runs the job to its end; answers how many rows it deleted. */
async function sweep(deps: TestDeps): Promise<number> {
  let deleted = 0;
  let step = await m2mTokenSweep(deps, null, silent);
  for (; !step.done; step = await m2mTokenSweep(deps, step.cursor, silent)) deleted += step.count;
  return deleted + step.count;
}

describeOnEachDialect('m2m token retention', (dialect) => {
  const idsOf = async ({ store: { read } }: TestDeps) =>
    (await read.db.select({ id: read.tables.statusLists.id }).from(read.tables.statusLists)).map(
      ({ id }) => id,
    );
  const insertLists = (deps: TestDeps, ids: string[], blocks_taken: number, updated_at: number) =>
    deps.store.tx(({ db, tables }) =>
      db
        .insert(tables.statusLists)
        .values(ids.map((id) => ({ id, seed: Buffer.alloc(32), blocks_taken, created_at: 1, updated_at }))),
    );

  it('deletes tokens a day after they expired, and their status list once all of it was given and none is left', async () => {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    await createM2mToken(
      deps,
      a.caller,
      createM2mTokenInput.parse({ format: 'jwt', ttlSeconds: 3 * 86_400 }),
    );
    const [list = ''] = await idsOf(deps);
    await deps.store.tx(({ db, tables }) =>
      db.update(tables.statusLists).set({ blocks_taken: BLOCKS_OF_LIST }),
    );
    deps.clock.now += 4 * DAY - 1;
    expect(await sweep(deps)).toBe(0);
    expect(await idsOf(deps)).toEqual([list]);
    deps.clock.now += 1;
    expect(await sweep(deps)).toBe(2);
    expect(await idsOf(deps)).toEqual([]);
  });

  it('keeps a status list of which somebody may still be given an index', async () => {
    const deps = await openTestDeps(dialect);
    const now = deps.clock.now;
    await insertLists(deps, ['sl_open'], BLOCKS_OF_LIST - 1, 1);
    await insertLists(deps, ['sl_young'], BLOCKS_OF_LIST, now - 2 * BLOCK_HELD_MS_MAX + 1);
    await insertLists(deps, ['sl_old'], BLOCKS_OF_LIST, now - 2 * BLOCK_HELD_MS_MAX);
    expect(await sweep(deps)).toBe(1);
    expect((await idsOf(deps)).sort()).toEqual(['sl_open', 'sl_young']);
  });

  it('goes through any number of status lists in small steps', async () => {
    const deps = await openTestDeps(dialect);
    const ids = Array.from({ length: 250 }, (_, i) => `sl_${String(i).padStart(3, '0')}`);
    await insertLists(deps, ids, BLOCKS_OF_LIST, 1);
    const first = await m2mTokenSweep(deps, null, silent);
    expect(first).toEqual({ done: false, cursor: { listsAfter: 'sl_099' }, count: 100 });
    expect(await sweep(deps)).toBe(150);
    expect(await idsOf(deps)).toEqual([]);
  });
});
