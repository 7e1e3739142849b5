/**
 * The five-minute tour, against a running server: two machines, a token, an API key, both revoked, and the webhook that
 * tells a real receiver so. Run it with `npm run demo`. It removes what it made.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { createCountersign } from '../client/index.ts';

interface Received {
  headers: IncomingHttpHeaders;
  body: string;
  at: number;
}

const WEBHOOK_WAIT_MS = 10_000;

const url = process.env['COUNTERSIGN_URL'] ?? 'http://127.0.0.1:4400';
const admin = createCountersign({ url, secretKey: adminKey() });
const suffix = Date.now().toString(36);

/** How to remove what was made so far, in the order it was made. */
const undo: (() => Promise<unknown>)[] = [];

try {
  await tour();
} catch (error) {
  process.stderr.write(`✗ ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
if (undo.length > 0) {
  for (const remove of undo.reverse()) await remove();
  say('All that was made is removed again');
}

async function tour() {
  const receiver = await startReceiver();
  undo.push(receiver.close);
  const endpoint = await admin.webhookEndpoints.create({
    url: receiver.url,
    eventTypes: ['m2m_token.revoked', 'api_key.revoked'],
  });
  undo.push(() => admin.webhookEndpoints.delete({ id: endpoint.id }));
  say(`A receiver listens at ${receiver.url} and is registered as ${endpoint.id}`);

  const billing = await admin.machines.create({ name: `demo-billing-${suffix}` });
  undo.push(() => admin.machines.delete({ id: billing.id }));
  const ledger = await admin.machines.create({ name: `demo-ledger-${suffix}` });
  undo.push(() => admin.machines.delete({ id: ledger.id }));
  say(`Two machines: ${billing.name} (${billing.id}) and ${ledger.name} (${ledger.id})`);

  await admin.machineScopes.create({
    fromMachineId: billing.id,
    toMachineId: ledger.id,
    scopes: ['entries:write'],
  });
  say(`${billing.name} may call ${ledger.name} with the scope entries:write`);

  const asBilling = createCountersign({ url, machineSecretKey: wanted(billing.secret) });
  const asLedger = createCountersign({ url, machineSecretKey: wanted(ledger.secret) });

  const token = await asBilling.m2mTokens.create({ audience: [ledger.id] });
  say(`${billing.name} minted the M2M token ${token.id}`);
  expectValid('The token, asked by the ledger', await asLedger.verify({ credential: wanted(token.token) }));

  const key = await admin.apiKeys.create({
    name: `demo ${suffix}`,
    subject: 'user_demo',
    scopes: ['invoices:read'],
  });
  undo.push(() => admin.apiKeys.delete({ id: key.id }));
  say(`user_demo has the API key ${key.id}, which begins ${key.start}`);
  expectValid('The key', await admin.verify({ credential: wanted(key.secret), scopes: ['invoices:read'] }));

  const revokedAt = performance.now();
  await admin.m2mTokens.revoke({ id: token.id, reason: 'demo' });
  await admin.apiKeys.revoke({ id: key.id, reason: 'no_longer_used' });
  expectRefused('The token', await asLedger.verify({ credential: wanted(token.token) }));
  expectRefused('The key', await admin.verify({ credential: wanted(key.secret) }));

  for (const type of ['m2m_token.revoked', 'api_key.revoked']) {
    const { headers, body, at } = await receiver.next(type);
    new Webhook(wanted(endpoint.secret)).verify(body, headers as Record<string, string>);
    say(
      `The receiver was told ${type} ${Math.round(at - revokedAt)} ms after revoking began, and the signature holds`,
    );
  }
}

function adminKey(): string {
  const given = process.env['COUNTERSIGN_SECRET_KEY'];
  if (given) return given;
  const file = join(process.env['COUNTERSIGN_DATA_DIR'] ?? './data', 'first-secret-key');
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    process.stderr.write(
      `✗ Wanted an admin key in COUNTERSIGN_SECRET_KEY or in '${file}', found none: is the server started?\n`,
    );
    process.exit(1);
  }
}

async function startReceiver() {
  const received = new Map<string, Received>();
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    received.set((JSON.parse(body) as { type: string }).type, {
      headers: request.headers,
      body,
      at: performance.now(),
    });
    response.writeHead(204).end();
    server.emit('received');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/webhooks`,
    async next(type: string): Promise<Received> {
      const signal = AbortSignal.timeout(WEBHOOK_WAIT_MS);
      for (;;) {
        const found = received.get(type);
        if (found) return found;
        await once(server, 'received', { signal }).catch(() =>
          fail(`Wanted the webhook ${type} within ${WEBHOOK_WAIT_MS} ms, found none: are workers running?`),
        );
      }
    },
    close: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function expectValid(what: string, answer: { valid: boolean }) {
  if (!answer.valid) fail(`${what} should verify: ${JSON.stringify(answer)}`);
  say(`${what}: valid`);
}

function expectRefused(what: string, answer: { valid: boolean; reason?: string }) {
  if (answer.valid || answer.reason !== 'revoked')
    fail(`${what} should be refused: ${JSON.stringify(answer)}`);
  say(`${what} after revoking: refused at once (${answer.reason})`);
}

function wanted(value: string | undefined): string {
  return value ?? fail('Wanted a secret that is answered once, found none');
}

function say(line: string) {
  process.stdout.write(`✓ ${line}\n`);
}

function fail(line: string): never {
  throw new Error(line);
}
