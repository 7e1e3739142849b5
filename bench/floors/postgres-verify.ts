/** The floor of verification on PostgreSQL: a statement that is prepared by name, on a pool of bare `pg`. */
import pg from 'pg';
import { announce, seedValues } from './floor.ts';
import { createVerifyServer, digest, type Owners, SELECT_OWNERS } from './verify.ts';

const { caller, credentials } = seedValues();
// As many connections as ours reads by.
const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'], max: 5 });

await pool.query('CREATE TABLE secrets (hash bytea PRIMARY KEY, owner text NOT NULL)');
for (const value of [caller, ...credentials]) {
  await pool.query('INSERT INTO secrets VALUES ($1, $2)', [digest(value), value.slice(0, 9)]);
}

const text = SELECT_OWNERS('$1', '$2');

announce(
  createVerifyServer((key, presented, done) => {
    pool
      .query<NonNullable<Owners>>({ name: 'read_owners', text, values: [key, presented] })
      .then(({ rows }) => done(rows[0]));
  }),
);
