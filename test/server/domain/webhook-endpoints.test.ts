import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
  listWebhookEndpoints,
  listWebhookEndpointsInput,
  WEBHOOK_ENDPOINTS_MAX,
  wantsEvent,
  webhookSecretOf,
} from '../../../server/domain/webhook-endpoints.ts';
import { createOutbound } from '../../../server/outbound.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const admin = callerWith('admin');

const open = async (...options: Parameters<typeof openTestDeps>): Promise<TestDeps> => ({
  ...(await openTestDeps(...options)),
  outbound: createOutbound({ allowLoopbackHttp: false }),
});
const create = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  createWebhookEndpoint(
    deps,
    admin,
    createWebhookEndpointInput.parse({ url: 'https://example.com/hooks?token=t0ps3cret', ...input }),
  );
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listWebhookEndpoints(deps, listWebhookEndpointsInput.parse(input));

describeOnEachDialect('webhook endpoints', (dialect) => {
  it('createWebhookEndpoint() answers a signing secret once, and keeps it sealed', async () => {
    const deps = await open(dialect);
    const { secret = '', ...endpoint } = await create(deps, {
      eventTypes: ['machine.*'],
      description: 'audit',
    });
    expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    expect(endpoint).toMatchObject({ enabled: true, eventTypes: ['machine.*'], description: 'audit' });
    expect((await list(deps)).data).toEqual([endpoint]);

    const { read } = deps.store;
    const [row] = await read.db.select().from(read.tables.webhookEndpoints);
    expect(row && webhookSecretOf(deps, row)).toBe(secret);
    expect(row?.sealed_secret.includes(secret)).toBe(false);
    expect(() => row && webhookSecretOf(deps, { ...row, id: 'ep_of_another' })).toThrow();
  });

  it('creating and deleting are one event each, which names the host and not the URL', async () => {
    const deps = await open(dialect);
    const { id } = await create(deps);
    expect(await deleteWebhookEndpoint(deps, admin, { id })).toEqual({ id, deleted: true });
    const events = (await listEvents(deps, { after: 1, limit: 10 })).data;
    expect(events).toMatchObject([
      { type: 'webhook_endpoint.created', objectId: id, data: { host: 'example.com' } },
      { type: 'webhook_endpoint.deleted', objectId: id, data: { host: 'example.com' } },
    ]);
    expect(JSON.stringify(events)).not.toContain('t0ps3cret');
  });

  it('an endpoint remembers the sequence of its own creation', async () => {
    const deps = await open(dialect);
    const made = await Promise.all(Array.from({ length: 5 }, () => create(deps)));
    const { read } = deps.store;
    const rows = await read.db.select().from(read.tables.webhookEndpoints);
    const events = (await listEvents(deps, { after: 0, limit: 10 })).data;
    for (const { id } of made) {
      const seq = events.find((event) => event.objectId === id)?.seq;
      expect(rows.find((row) => row.id === id)?.created_seq).toBe(seq);
    }
  });

  it('deleteWebhookEndpoint() does not find an endpoint twice', async () => {
    const deps = await open(dialect);
    const { id } = await create(deps);
    await deleteWebhookEndpoint(deps, admin, { id });
    await expect(deleteWebhookEndpoint(deps, admin, { id })).rejects.toMatchObject({ code: 'not_found' });
    expect((await list(deps)).data).toEqual([]);
  });

  it('createWebhookEndpoint() refuses a URL that this server does not send to, and changes nothing', async () => {
    const deps = await open(dialect);
    for (const url of [
      'http://example.com',
      'http://127.0.0.1:3000',
      'https://user:pass@example.com',
      'ftp://example.com',
      'example.com',
    ]) {
      await expect(create(deps, { url })).rejects.toMatchObject({ code: 'url_not_allowed', field: 'url' });
    }
    expect((await list(deps)).data).toEqual([]);
    expect((await listEvents(deps, { after: 1, limit: 10 })).data).toEqual([]);
  });

  it('createWebhookEndpoint() refuses what is no type of event, a type named twice, and characters no URL has', () => {
    const url = 'https://example.com';
    for (const bad of [
      { url, eventTypes: ['machine'] },
      { url, eventTypes: ['*'] },
      { url, eventTypes: ['machines.*'] },
      { url, eventTypes: ['toString'] },
      { url, eventTypes: ['machine.created', 'machine.created'] },
      { url: 'https://exa mple.com' },
      { url: `https://example.com/\n` },
      { url: 'https://exämple.com' },
      { url: `${url}/${'x'.repeat(2048)}` },
      { url, secret: 'whsec_chosen' },
    ]) {
      expect(createWebhookEndpointInput.safeParse(bad).success).toBe(false);
    }
  });

  it('of many that want the last place exactly one has it', async () => {
    const deps = await open(dialect);
    for (let i = 1; i < WEBHOOK_ENDPOINTS_MAX; i++) await create(deps);
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => create(deps)));
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
    expect(outcomes.find((outcome) => outcome.status === 'rejected')?.reason).toMatchObject({
      code: 'limit_reached',
    });
    expect((await list(deps, { limit: 500 })).data).toHaveLength(WEBHOOK_ENDPOINTS_MAX);
  });

  it('listWebhookEndpoints() walks every endpoint once', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 5; i++) {
      deps.clock.now += i % 2;
      await create(deps);
    }
    const whole = (await list(deps)).data.map((endpoint) => endpoint.id);
    const walked: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await list(deps, { limit: 2, ...(cursor && { cursor }) });
      walked.push(...page.data.map((endpoint) => endpoint.id));
      cursor = page.nextCursor;
    }
    expect(walked).toEqual(whole);
    expect(walked).toHaveLength(5);
  });
});

it('wantsEvent() takes exact types and nouns, and everything where nothing is named', () => {
  expect(wantsEvent([], 'api_key.revoked')).toBe(true);
  expect(wantsEvent(['api_key.revoked'], 'api_key.revoked')).toBe(true);
  expect(wantsEvent(['api_key.*'], 'api_key.revoked')).toBe(true);
  expect(wantsEvent(['api_key.created', 'machine.*'], 'api_key.revoked')).toBe(false);
  expect(wantsEvent(['machine.*'], 'machine_scope.created')).toBe(false);
});
