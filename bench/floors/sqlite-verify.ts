/**
 * The floor of verification on SQLite: `node:http` that authenticates the caller, hashes both values with the pepper,
 * reads both rows in one statement and sends a body like ours. It judges, counts and logs nothing.
 */
import { createHmac, hash } from 'node:crypto';
import { createServer } from 'node:http';
import Database from 'better-sqlite3';
import { announce, seedValues, VALID_ANSWER } from './floor.ts';

const pepper = Buffer.alloc(32, 9);
const digest = (value: string) =>
  createHmac('sha256', pepper)
    .update(hash('sha256', value, 'buffer'))
    .digest();

const { caller, credentials } = seedValues();
const db = new Database(':memory:');
db.exec('CREATE TABLE secrets (hash BLOB PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID');
const insert = db.prepare('INSERT INTO secrets VALUES (?, ?)');
for (const value of [caller, ...credentials]) insert.run(digest(value), value.slice(0, 9));
const read = db.prepare(
  'SELECT c.owner AS caller, k.owner AS key FROM secrets c LEFT JOIN secrets k ON k.hash = ? WHERE c.hash = ?',
);

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const { credential } = JSON.parse(Buffer.concat(chunks).toString()) as { credential: string };
    const presented = (request.headers.authorization ?? '').slice('Bearer '.length);
    const row = read.get(digest(credential), digest(presented)) as
      | { caller: string; key: string | null }
      | undefined;
    const status = row?.key ? 200 : 401;
    const text = JSON.stringify(status === 200 ? VALID_ANSWER : {});
    response.writeHead(status, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(text),
    });
    response.end(text);
  });
});
announce(server);
