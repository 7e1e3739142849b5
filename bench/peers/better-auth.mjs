/**
 * Better Auth verifying API keys over HTTP: its api-key plugin in its fastest safe setting on SQLite, behind a bare
 * `node:http`. Like ours the keys have a rate limit that is never reached and their use is counted. It is spared the
 * authentication of a caller, Express, and the flush of each commit to the disk. Arguments: the path of better-sqlite3,
 * how many keys, a folder for the database.
 */
import { createServer } from 'node:http';
import { join } from 'node:path';
import { apiKey } from '@better-auth/api-key';
import { betterAuth } from 'better-auth';
import { getMigrations } from 'better-auth/db/migration';

const [driver, count, folder] = process.argv.slice(2);
const { default: Database } = await import(driver);
const database = new Database(join(folder, 'better-auth.db'));
database.pragma('journal_mode = WAL');
database.pragma('synchronous = NORMAL');

const options = {
  baseURL: 'http://127.0.0.1',
  secret: 'a secret of a measurement, which protects nothing',
  database,
  telemetry: { enabled: false },
  emailAndPassword: { enabled: true },
  plugins: [apiKey({ rateLimit: { enabled: true, timeWindow: 60_000, maxRequests: 1_000_000_000 } })],
};
const { runMigrations } = await getMigrations(options);
await runMigrations();
const auth = betterAuth(options);

const { user } = await auth.api.signUpEmail({
  body: { name: 'bench', email: 'bench@example.com', password: 'a password of a measurement' },
});
const keys = [];
for (let i = 0; i < Number(count); i++) {
  keys.push(await auth.api.createApiKey({ body: { name: `key ${i}`, userId: user.id, prefix: 'ak_' } }));
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', async () => {
    const body = JSON.parse(Buffer.concat(chunks).toString());
    const answer = await auth.api.verifyApiKey({ body });
    const text = JSON.stringify(answer);
    response.writeHead(answer.valid ? 200 : 401, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(text),
    });
    response.end(text);
  });
});
server.listen(0, '127.0.0.1', () => {
  const requests = keys.map(({ key }) => ({
    path: '/',
    contentType: 'application/json',
    body: JSON.stringify({ key }),
  }));
  process.stdout.write(`ready ${JSON.stringify({ port: server.address().port, requests })}\n`);
});
