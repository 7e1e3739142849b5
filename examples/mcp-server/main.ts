/**
 * Runs the MCP server beside a Countersign server that was started with `COUNTERSIGN_OAUTH_CLIENTS=mcp`, with a key that it
 * makes for itself and revokes in the end. `npm run example:mcp-server`, then have an agent connect to the URL that it prints.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../../client/errors.ts';
import { createCountersign } from '../../client/index.ts';
import { createVerifier } from '../../client/verifier.ts';
import { createMcpApplication } from './application.ts';

const DAY_SECONDS = 86_400;

const url = process.env['COUNTERSIGN_URL'] ?? 'http://127.0.0.1:4400';
const resource = process.env['MCP_URL'] ?? 'http://127.0.0.1:4506/mcp';
const dataDir = process.env['COUNTERSIGN_DATA_DIR'] ?? './data';
const secretKey =
  process.env['COUNTERSIGN_SECRET_KEY'] ?? readFileSync(join(dataDir, 'first-secret-key'), 'utf8').trim();
const admin = createCountersign({ url, secretKey });

await defineScope('notes:read', 'Read your notes');
await defineScope('notes:write', 'Add notes to yours');
const key = await admin.secretKeys.create({ name: 'mcp-server', role: 'verify', ttlSeconds: DAY_SECONDS });
const verifier = createVerifier({ url, secretKey: key.secret });

const { hostname, port } = new URL(resource);
const server = createMcpApplication({ verifier, resource, issuer: url }).listen(
  Number(port),
  hostname,
  () => {
    process.stdout.write(`The MCP server listens at ${resource}\n`);
  },
);

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, async () => {
    server.close();
    server.closeAllConnections();
    await verifier.close();
    await admin.secretKeys.revoke({ id: key.id });
  });

/** In the words that people read where they allow it. */
async function defineScope(name: string, description: string) {
  try {
    await admin.oauthScopes.create({ name, description, resource });
  } catch (error) {
    if (!(error instanceof CountersignError && error.code === 'name_taken')) throw error;
  }
}
