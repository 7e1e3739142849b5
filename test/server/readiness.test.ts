import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { sql } from 'drizzle-orm';
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { openStore } from '../../db/store.ts';
import { answerStarting, createHttpServer, createRequestListener } from '../../server/app.ts';
import type { Deps } from '../../server/deps.ts';
import { createFeeds } from '../../server/feed.ts';
import { createLogger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { describeOnEachDialect, freshDatabase, openTestDeps } from '../support/deps.ts';
import { send } from '../support/server.ts';

type State = { degraded?: string | null; isDraining?: boolean };

/** Serves these deps on a port of its own, in this process; answers its URL. */
async function serve(deps: Deps, { degraded = null, isDraining = false }: State = {}): Promise<string> {
  return listen(
    createRequestListener({
      deps,
      feeds: createFeeds(deps, createLogger('silent')),
      config: { publicUrl: deps.publicUrl, corsOrigins: [], trustedProxies: [], console: false },
      logger: createLogger('silent'),
      metrics: createMetrics(),
      openQueueBoard: null,
      degraded: () => degraded,
      isDraining: () => isDraining,
    }),
  );
}

async function listen(listener: Parameters<typeof createHttpServer>[0]): Promise<string> {
  const server = createHttpServer(listener).listen(0, '127.0.0.1');
  onTestFinished(async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  });
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const currentDatabase = sql<string>`current_database()`;

describeOnEachDialect('/readyz', (dialect) => {
  it('answers 200 and what is degraded while the database answers', async () => {
    const url = await serve(await openTestDeps(dialect), { degraded: 'Redis does not answer' });
    expect(await send(`${url}/readyz`)).toMatchObject({
      status: 200,
      body: { status: 'ready', degraded: 'Redis does not answer' },
    });
  });

  it('answers 503 on the way out, and asks for no more requests', async () => {
    const url = await serve(await openTestDeps(dialect), { isDraining: true });
    const { status, headers, body } = await send(`${url}/readyz`);
    expect([status, headers.get('connection')]).toEqual([503, 'close']);
    expect(body).toEqual({ status: 'not_ready', degraded: null });
  });

  it('answers 503 while the database is gone, and the process still lives', async () => {
    const deps = await openTestDeps(dialect);
    const store = await openStore({ location: await freshDatabase(dialect) });
    await store.close();
    const url = await serve({ ...deps, store });
    expect((await send(`${url}/readyz`)).status).toBe(503);
    expect((await send(`${url}/healthz`)).status).toBe(200);
    expect((await send(`${url}/`)).body).toContain('not ready');
  });
});

const { url: postgresUrl, missing } = inject('postgres');
describe.skipIf(postgresUrl === null)(
  `/readyz on PostgreSQL${postgresUrl ? '' : ` [skipped: ${missing}]`}`,
  () => {
    it('answers 503 when a read takes longer than a second, and 200 again afterwards', async () => {
      const deps = await openTestDeps('postgres');
      const url = await serve(deps);
      const release = await blockReads(deps);
      expect((await send(`${url}/readyz`)).status).toBe(503);
      await release();
      expect((await send(`${url}/readyz`)).status).toBe(200);
    });
  },
);

/** Keeps every reader of the installation waiting until released. */
async function blockReads(deps: Deps): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: await databaseOf(deps) });
  await client.connect();
  await client.query('BEGIN; LOCK TABLE installation IN ACCESS EXCLUSIVE MODE');
  return () => client.end();
}

/** The URL of the database behind deps, which the store does not tell. */
async function databaseOf({ store: { read } }: Deps): Promise<string> {
  const [row] = await read.db.select({ name: currentDatabase }).from(read.tables.installation);
  return `${postgresUrl}/${row?.name}`;
}

describe('answerStarting()', () => {
  it('answers that the process lives, and 503 to everything else', async () => {
    const url = await listen(answerStarting);
    expect(await send(`${url}/healthz`)).toMatchObject({ status: 200, body: { status: 'ok' } });
    for (const path of ['/', '/readyz', '/v1/verify', '/trpc/machines.list']) {
      const { status, headers, body } = await send(url + path);
      expect(status).toBe(503);
      expect(body).toMatchObject({
        errors: [{ code: 'unavailable' }],
        clerk_trace_id: headers.get('x-request-id'),
      });
    }
  });
});
