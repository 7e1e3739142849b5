/**
 * Runs the application beside a Countersign server, with two keys that it has made for itself and revokes in the end.
 * `npm run example:host-app`, then sign in as alice or bob, with the password `alice's password` or `bob's password`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCountersign } from '../../client/index.ts';
import { createHostApp } from './application.ts';

const PORT = 3000;
const DAY_SECONDS = 86_400;

const url = process.env['COUNTERSIGN_URL'] ?? 'http://127.0.0.1:4400';
const dataDir = process.env['COUNTERSIGN_DATA_DIR'] ?? './data';
const secretKey =
  process.env['COUNTERSIGN_SECRET_KEY'] ?? readFileSync(join(dataDir, 'first-secret-key'), 'utf8').trim();
const admin = createCountersign({ url, secretKey });

const newKey = (role: 'interaction' | 'verify') =>
  admin.secretKeys.create({ name: `host-app ${role}`, role, ttlSeconds: DAY_SECONDS });
const keys = [await newKey('interaction'), await newKey('verify')];
const [interactionKey = '', verifyKey = ''] = keys.map(({ secret }) => secret);

const server = createHostApp({ url, interactionKey, verifyKey }).listen(PORT, '127.0.0.1', () => {
  process.stdout.write(`The application listens at http://127.0.0.1:${PORT}\n`);
});

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, async () => {
    server.close();
    server.closeAllConnections();
    for (const { id } of keys) await admin.secretKeys.revoke({ id });
  });
