/** The floor of verification on SQLite, stored and read as ours is: a file with a WAL, and a connection that only reads. */
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { announce, givenFolder, seedValues } from './floor.ts';
import { createVerifyServer, digest, type Owners, SELECT_OWNERS } from './verify.ts';

const { caller, credentials } = seedValues();
const file = join(givenFolder(), 'floor.db');

const writer = new Database(file);
writer.pragma('journal_mode = WAL');
writer.exec('CREATE TABLE secrets (hash BLOB PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID');
const insert = writer.prepare('INSERT INTO secrets VALUES (?, ?)');
for (const value of [caller, ...credentials]) insert.run(digest(value), value.slice(0, 9));

// The reader of db/sqlite.ts. The writer stays open, as ours does.
const reader = new Database(file, { readonly: true, timeout: 5_000 });
reader.pragma('cache_size = -65536');
const read = reader.prepare(SELECT_OWNERS('?', '?'));

announce(createVerifyServer((key, presented, done) => done(read.get(key, presented) as Owners)));
