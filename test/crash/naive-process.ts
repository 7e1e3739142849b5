/** `naive-process.ts <file> <port> <redis> <receiver>`: commits a row for each request, then adds a job for it. */
import { createServer } from 'node:http';
import Database from 'better-sqlite3';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const [file = '', port = '', redisUrl = '', receiverUrl = ''] = process.argv.slice(2);
const database = new Database(file);
database.pragma('journal_mode = WAL');
database.exec('CREATE TABLE IF NOT EXISTS committed (id TEXT PRIMARY KEY)');
const insert = database.prepare('INSERT INTO committed VALUES (?)');

const connect = () => {
  const redis = new Redis(redisUrl, { maxRetriesPerRequest: null });
  redis.on('error', () => {});
  return redis;
};
const queue = new Queue('naive', { connection: connect() });
queue.on('error', () => {});
const worker = new Worker(
  'naive',
  async ({ data: { id } }) => {
    const answer = await fetch(receiverUrl, {
      method: 'POST',
      headers: { 'webhook-id': id },
      body: JSON.stringify({
        type: 'committed',
        timestamp: new Date().toISOString(),
        data: { objectId: id },
      }),
    });
    if (!answer.ok) throw new Error(`Wanted 2xx, found ${answer.status}`);
  },
  { connection: connect(), concurrency: 32, lockDuration: 3_000, stalledInterval: 1_000, maxStalledCount: 5 },
);
worker.on('error', () => {});

createServer(async (request, response) => {
  const id = (request.url ?? '').slice(1);
  insert.run(id);
  // Waits no longer than a caller would.
  const added = queue.add('send', { id }, { attempts: 10, backoff: 500 }).catch(() => {});
  await Promise.race([added, new Promise((resolve) => setTimeout(resolve, 1_000))]);
  response.end();
}).listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
