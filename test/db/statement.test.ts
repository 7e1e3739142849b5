import { eq, placeholder } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { describeOnEachDialect, openTestStore } from '../support/deps.ts';
import { addRow, rowIds, settle } from './rows.ts';

/** A statement that inserts, one that lists, and how often each was built. */
function statements() {
  const built = { insert: 0, list: 0 };
  const insert = statement((db, { usage }: Rows['tables']) => {
    built.insert++;
    return db
      .insert(usage)
      .values({ credential_id: placeholder('id'), hour: 0, valid_count: 0, refused_count: 0 })
      .prepare('test_insert');
  });
  const list = statement((db, { usage }: Rows['tables']) => {
    built.list++;
    return db.select({ id: usage.credential_id }).from(usage).prepare('test_list');
  });
  return { built, insert, list };
}

describeOnEachDialect('statement()', (dialect) => {
  it('runs within the transaction it is used in, also when it was used outside before', async () => {
    const store = await openTestStore(dialect);
    const { list } = statements();
    expect(await list(store.read, {})).toEqual([]);
    await store.tx(async (tx) => {
      await addRow(tx, 'a');
      expect(await list(tx, {})).toEqual([{ id: 'a' }]);
      expect(await list(store.read, {})).toEqual([]);
    });
    expect(await list(store.read, {})).toEqual([{ id: 'a' }]);
  });

  it('is rolled back with the transaction it is used in, and not with another', async () => {
    const store = await openTestStore(dialect);
    const { insert } = statements();
    const { refused } = await settle(
      Array.from({ length: 20 }, (_, i) =>
        store.tx(async (tx) => {
          await insert(tx, { id: `${i}` });
          if (i % 2 === 1) throw new Error('refused by the domain');
          return `${i}`;
        }),
      ),
    );
    expect(refused).toHaveLength(10);
    expect((await rowIds(store)).map(Number).sort((a, b) => a - b)).toEqual([
      0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
    ]);
  });

  it('is built once for each connection, however many transactions use it', async () => {
    const store = await openTestStore(dialect);
    const { built, insert, list } = statements();
    for (let i = 0; i < 10; i++) {
      await store.tx((tx) => insert(tx, { id: `${i}` }));
      await list(store.read, {});
    }
    expect(built).toEqual({ insert: 1, list: 1 });
  });
});

describeOnEachDialect('flatStatement()', (dialect) => {
  it('refuses to run without a value for each placeholder', async () => {
    const store = await openTestStore(dialect);
    const read = flatStatement<{ id?: string }, { id: string }>('test_read', (db, { usage: u }) => {
      const fields = { id: u.credential_id };
      return {
        fields,
        query: db
          .select(fields)
          .from(u)
          .where(eq(u.credential_id, placeholder('id'))),
      };
    });
    expect(await read(store.read, { id: 'a' })).toEqual([]);
    expect(() => read(store.read, {})).toThrow("Wanted a value for the placeholder 'id', found none");
  });
});
