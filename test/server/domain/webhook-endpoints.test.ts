import { expect, it } from 'vitest';
import { wantsEvent } from '../../../server/domain/delivery-expansion.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
  getWebhookEndpoint,
  listWebhookEndpoints,
  listWebhookEndpointsInput,
  rotateWebhookSecret,
  rotateWebhookSecretInput,
  setWebhookEndpointEnabled,
  updateWebhookEndpoint,
  updateWebhookEndpointInput,
  WEBHOOK_ENDPOINTS_MAX,
  webhookKeysOf,
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
    expect(row && webhookKeysOf(deps, row, deps.now())).toEqual({ secrets: [secret], privateKey: null });
    expect(row?.sealed_secret.includes(secret)).toBe(false);
    expect(() => row && webhookKeysOf(deps, { ...row, id: 'ep_of_another' }, 0)).toThrow();
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

  it('updateWebhookEndpoint() changes what it is told to, by one event that names the fields', async () => {
    const deps = await open(dialect);
    const { secret: _, ...before } = await create(deps, { description: 'audit' });
    const update = (input: Record<string, unknown>) =>
      updateWebhookEndpoint(deps, admin, updateWebhookEndpointInput.parse({ id: before.id, ...input }));
    expect(await update({ description: 'audit', eventTypes: [], subjects: null })).toEqual(before);
    deps.clock.now += 1;
    const wanted = { url: 'https://example.org/', eventTypes: ['machine.*'], subjects: ['user_1'] };
    const after = await update({ ...wanted, description: null });
    expect(after).toEqual({ ...before, ...wanted, description: null, updatedAt: deps.clock.now });
    expect(await getWebhookEndpoint(deps, before)).toEqual(after);
    const { data } = await listEvents(deps, { after: 2, limit: 10 });
    expect(data).toMatchObject([
      {
        type: 'webhook_endpoint.updated',
        data: { host: 'example.org', changed: ['url', 'description', 'eventTypes', 'subjects'] },
      },
    ]);
    await expect(update({ url: 'http://10.0.0.1' })).rejects.toMatchObject({ code: 'url_not_allowed' });
    await expect(update({ id: `ep_${'0'.repeat(27)}` })).rejects.toMatchObject({ code: 'not_found' });
  });

  it('an asymmetric endpoint answers its public key, which update() takes away and makes anew', async () => {
    const deps = await open(dialect);
    const { id, publicKey } = await create(deps, { asymmetric: true });
    expect(publicKey).toMatch(/^whpk_[A-Za-z0-9+/]{43}=$/);
    const set = async (asymmetric: boolean) =>
      (await updateWebhookEndpoint(deps, admin, { id, asymmetric })).publicKey;
    expect(await set(true)).toBe(publicKey);
    expect(await set(false)).toBeNull();
    expect(await set(true)).not.toBe(publicKey);
    const { read } = deps.store;
    expect(JSON.stringify(await read.db.select().from(read.tables.webhookEndpoints))).not.toContain('whsk_');
  });

  it('rotateWebhookSecret() lets the secret before sign beside the new one until the overlap ends', async () => {
    const deps = await open(dialect);
    const { id, secret: first = '' } = await create(deps);
    const rotate = (input: Record<string, unknown> = {}) =>
      rotateWebhookSecret(deps, admin, rotateWebhookSecretInput.parse({ id, ...input }));
    const signing = async () => {
      const { read } = deps.store;
      const [row] = await read.db.select().from(read.tables.webhookEndpoints);
      return row && webhookKeysOf(deps, row, deps.now()).secrets;
    };
    const end = deps.clock.now + 24 * 3_600_000;
    const { secret: second, previousSecretExpiresAt } = await rotate();
    expect(previousSecretExpiresAt).toBe(end);
    expect(await signing()).toEqual([second, first]);
    await expect(rotate()).rejects.toMatchObject({ code: 'rotation_in_progress' });
    deps.clock.now = end;
    expect(await signing()).toEqual([second]);
    expect(await getWebhookEndpoint(deps, { id })).toMatchObject({ previousSecretExpiresAt: null });
    const { secret: third } = await rotate({ overlapSeconds: 604_800 });
    expect(await signing()).toEqual([third, second]);
    const { secret: fourth, ...last } = await rotate({ overlapSeconds: 0 });
    expect(last.previousSecretExpiresAt).toBeNull();
    expect(await signing()).toEqual([fourth]);
    expect(rotateWebhookSecretInput.safeParse({ id, overlapSeconds: 604_801 }).success).toBe(false);
    const { data } = await listEvents(deps, { after: 2, limit: 10 });
    expect(data.map(({ type }) => type)).toEqual(Array(3).fill('webhook_endpoint.secret_rotated'));
    expect(JSON.stringify(data)).not.toContain('whsec_');
  });

  it('setWebhookEndpointEnabled() says why it is disabled, and leaves no event where it already is as wanted', async () => {
    const deps = await open(dialect);
    const { id } = await create(deps);
    const set = (enabled: boolean) => setWebhookEndpointEnabled(deps, admin, { id }, enabled);
    expect(await set(true)).toMatchObject({ enabled: true, disabledReason: null });
    expect(await set(false)).toMatchObject({ enabled: false, disabledReason: 'operator' });
    expect(await set(false)).toMatchObject({ enabled: false });
    expect(await set(true)).toMatchObject({ enabled: true, disabledReason: null });
    const { data } = await listEvents(deps, { after: 2, limit: 10 });
    expect(data.map(({ type }) => type)).toEqual(['webhook_endpoint.disabled', 'webhook_endpoint.enabled']);
  });

  it('of many that want the last place exactly one has it', async () => {
    const deps = await open(dialect);
    for (let made = 1; made < WEBHOOK_ENDPOINTS_MAX; made += 37)
      await Promise.all(Array.from({ length: 37 }, () => create(deps)));
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => create(deps)));
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
    expect(outcomes.find((outcome) => outcome.status === 'rejected')?.reason).toMatchObject({
      code: 'limit_reached',
    });
    const { read } = deps.store;
    expect(await read.db.$count(read.tables.webhookEndpoints)).toBe(WEBHOOK_ENDPOINTS_MAX);
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
