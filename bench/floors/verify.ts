/**
 * The floor of verification, but for the database: `node:http` that authenticates the caller, hashes both values with the
 * pepper, has both rows read in one statement and sends the body we send. It judges, counts and logs nothing.
 */
import { createHmac, hash } from 'node:crypto';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { givenAnswer } from './floor.ts';

/** The owners of the two values; of the key null where it is unknown, and nothing where the caller is. */
export type Owners = { caller: string; key: string | null } | undefined;

/** Reads both rows and hands them over: by a callback, for SQLite's has them at once and PostgreSQL's later. */
export type ReadOwners = (key: Buffer, caller: Buffer, done: (owners: Owners) => void) => void;

/** As both tables have it: a hash and whose it is. */
export const SELECT_OWNERS = (key: string, caller: string) =>
  `SELECT c.owner AS caller, k.owner AS key FROM secrets c LEFT JOIN secrets k ON k.hash = ${key} WHERE c.hash = ${caller}`;

const pepper = Buffer.alloc(32, 9);

export const digest = (value: string) =>
  createHmac('sha256', pepper)
    .update(hash('sha256', value, 'buffer'))
    .digest();

export function createVerifyServer(readOwners: ReadOwners): Server {
  const answer = givenAnswer();
  return createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { credential } = JSON.parse(Buffer.concat(chunks).toString()) as { credential: string };
      const presented = (request.headers.authorization ?? '').slice('Bearer '.length);
      readOwners(digest(credential), digest(presented), (owners) => {
        if (owners?.key) send(response, 200, answer);
        else send(response, 401, {});
      });
    });
  });
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}
