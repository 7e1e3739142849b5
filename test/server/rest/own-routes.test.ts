/** What goes beyond Clerk's API, each reached once: `serveRest` holds every answer against the document. */

import { hash } from 'node:crypto';
import { beforeEach, expect, it } from 'vitest';
import { ensureJobs } from '../../../server/domain/jobs.ts';
import { createInteraction } from '../../../server/domain/oauth-interactions.ts';
import { openTestDeps, type TestDeps } from '../../support/deps.ts';
import { type ServedRest, serveRest } from '../../support/rest.ts';
import { newUser, newUserSession } from '../../support/users.ts';

let deps: TestDeps;
let served: ServedRest;

beforeEach(async () => {
  deps = await openTestDeps('sqlite');
  served = await serveRest(deps);
});

/** The body of an answer that is no refusal. */
async function ask(method: string, path: string, body?: unknown, credential = deps.adminKey) {
  const answer = await served.ask(method, path, { credential, body });
  expect(answer).toMatchObject({ status: 200 });
  return answer.body;
}

it('machines: enabled and disabled, secrets rotated by an admin and by themselves', async () => {
  const { id, secret_key } = await ask('POST', '/v1/machines', { name: 'billing' });
  expect(await ask('POST', `/v1/machines/${id}/disable`)).toMatchObject({ enabled: false });
  expect(await ask('POST', `/v1/machines/${id}/enable`)).toMatchObject({ enabled: true });
  const own = await ask('POST', '/v1/machines/me/secret_key/rotate', { previous_token_ttl: 60 }, secret_key);
  expect(own).toMatchObject({
    secret: expect.stringMatching(/^msk_/),
    previous_expires_at: deps.now() + 60_000,
  });
  await ask('POST', `/v1/machines/${id}/secret_key/cancel_rotation`);
  await ask('POST', `/v1/machines/${id}/secret_key/rotate`, { previous_token_ttl: 60 });
  await ask('POST', `/v1/machines/${id}/secret_key/complete_rotation`);
  expect(await ask('POST', `/v1/machines/${id}/secret_key/rotate`, { compromised: true })).toMatchObject({
    previous_expires_at: null,
  });
});

it('machine scopes: with scopes, listed and changed', async () => {
  const [billing, ledger] = [
    await ask('POST', '/v1/machines', { name: 'billing' }),
    await ask('POST', '/v1/machines', { name: 'ledger' }),
  ];
  await ask('POST', `/v1/machines/${billing.id}/scopes`, { to_machine_id: ledger.id, scopes: ['read'] });
  const edge = `/v1/machines/${billing.id}/scopes/${ledger.id}`;
  expect(await ask('PATCH', edge, { scopes: ['read', 'write'] })).toMatchObject({
    scopes: ['read', 'write'],
  });
  expect(await ask('GET', `/v1/machine_scopes?from_machine_id=${billing.id}`)).toMatchObject({
    data: [{ to_machine_id: ledger.id, scopes: ['read', 'write'] }],
    next_cursor: null,
  });
});

it('M2M tokens: one shown, revoked by value, and all of a machine', async () => {
  const { id: machineId, secret_key } = await ask('POST', '/v1/machines', { name: 'billing' });
  const { body } = await served.ask('POST', '/v1/m2m_tokens', { credential: secret_key, body: {} });
  expect(await ask('GET', `/v1/m2m_tokens/${body.id}`)).toMatchObject({ revoked: false });
  expect(await ask('POST', '/v1/m2m_tokens/revoke_by_value', { value: body.token })).toEqual({
    accepted: true,
  });
  expect(await ask('GET', `/v1/m2m_tokens/${body.id}`)).toMatchObject({ revoked: true });
  expect(await ask('POST', '/v1/m2m_tokens/revoke_all', { machine_id: machineId })).toEqual({
    machine_id: machineId,
    revoked_at: deps.now(),
  });
});

it('API keys: rotated, with credits, imported, and revoked together', async () => {
  const created = await ask('POST', '/v1/api_keys', {
    name: 'export',
    subject: 'user_1',
    rate_limit: { count: 10, window_seconds: 60 },
    credits: { remaining: 5, refill_amount: 5, refill_interval_seconds: 60 },
    rotation: { period_seconds: 86_400 },
  });
  expect(created).toMatchObject({
    rate_limit: { count: 10, window_seconds: 60 },
    rotation: { period_seconds: 86_400, at_deadline: 'warn' },
  });
  const key = `/v1/api_keys/${created.id}`;
  expect(await ask('GET', key)).toMatchObject({ remaining_credits: 5, state: 'live' });
  expect(await ask('PUT', `${key}/credits`, { remaining: 9 })).toMatchObject({ remaining_credits: 9 });
  const rotated = await ask('POST', `${key}/rotate`, { overlap_seconds: 60 });
  expect(rotated).toMatchObject({
    secret: expect.stringMatching(/^ak_/),
    previous_expires_at: deps.now() + 60_000,
  });
  await ask('POST', `${key}/cancel_rotation`);
  await ask('POST', `${key}/rotate`, { overlap_seconds: 60 });
  await ask('POST', `${key}/complete_rotation`);
  expect(await ask('POST', `${key}/disable`)).toMatchObject({ enabled: false, state: 'disabled' });
  await ask('POST', `${key}/enable`);
  expect(await ask('PATCH', key, { name: 'weekly', rate_limit: null })).toMatchObject({
    name: 'weekly',
    rate_limit: null,
  });
  const item = { hash: hash('sha256', 'old_1', 'hex'), subject: 'user_1', name: 'old', created_by: 'user_2' };
  expect(
    await ask('POST', '/v1/api_keys/import', { items: [item, { nope: 1 }], shapes: [{ prefix: 'old_' }] }),
  ).toMatchObject({ imported: 1, refused: 1, results: [{ outcome: 'imported' }, { outcome: 'refused' }] });
  expect(await ask('POST', '/v1/api_keys/revoke_by_value', { value: 'old_1' })).toEqual({ accepted: true });
  expect(await ask('POST', '/v1/api_keys/revoke_all', { subject: 'user_1', reason: 'owner_left' })).toEqual({
    revoked: 1,
  });
  const { data, total_count } = await ask('GET', '/v1/api_keys?subject=user_1&include_invalid=true&limit=1');
  expect([data.length, total_count]).toEqual([1, 2]);
});

it('key prefixes and key policies', async () => {
  expect(await ask('POST', '/v1/key_prefixes', { prefix: 'acme_' })).toMatchObject({ prefix: 'acme_' });
  const { id } = await ask('POST', '/v1/key_policies', {
    name: 'trial',
    prefix: 'acme_',
    credits: { amount: 5, refill_amount: 5, refill_interval_seconds: 60 },
  });
  const policy = `/v1/key_policies/${id}`;
  expect(await ask('PATCH', policy, { live_keys_max: 3, prefix: 'ak_' })).toMatchObject({ live_keys_max: 3 });
  expect(await ask('GET', policy)).toMatchObject({ name: 'trial' });
  expect((await ask('GET', '/v1/key_policies')).data).toHaveLength(1);
  expect(await ask('DELETE', policy)).toEqual({ id, deleted: true });
  expect((await ask('GET', '/v1/key_prefixes')).data).toHaveLength(1);
  expect(await ask('DELETE', '/v1/key_prefixes/acme_')).toEqual({ prefix: 'acme_', deleted: true });
});

it('subjects, whatever their ids are made of', async () => {
  const subject = `/v1/subjects/${encodeURIComponent('tenant/7 ü')}`;
  expect(await ask('PUT', subject, { rate_limit: { count: 5, window_seconds: 60 } })).toMatchObject({
    id: 'tenant/7 ü',
    rate_limit: { count: 5, window_seconds: 60 },
  });
  expect(await ask('PUT', `${subject}/credits`, { remaining: 3 })).toMatchObject({ remaining_credits: 3 });
  expect(await ask('POST', `${subject}/disable`)).toMatchObject({ enabled: false });
  expect(await ask('POST', `${subject}/enable`)).toMatchObject({ enabled: true });
  expect(await ask('GET', subject)).toMatchObject({ remaining_credits: 3 });
  expect((await ask('GET', '/v1/subjects')).data).toHaveLength(1);
});

it('secret keys', async () => {
  const { id, secret } = await ask('POST', '/v1/secret_keys', {
    name: 'ci',
    role: 'issuer',
    ttl_seconds: 3600,
  });
  expect(secret).toMatch(/^sk_/);
  const key = `/v1/secret_keys/${id}`;
  expect(await ask('PATCH', key, { name: 'deploy' })).toMatchObject({ name: 'deploy' });
  await ask('POST', `${key}/rotate`, { overlap_seconds: 60 });
  await ask('POST', `${key}/cancel_rotation`);
  await ask('POST', `${key}/rotate`, { overlap_seconds: 60 });
  await ask('POST', `${key}/complete_rotation`);
  expect(await ask('POST', `${key}/revoke`)).toMatchObject({ state: 'revoked' });
  expect((await ask('GET', '/v1/secret_keys')).data).toHaveLength(2);
});

it('signing keys, the JWKS and status lists', async () => {
  const { kid } = await ask('POST', '/v1/signing_keys', { alg: 'EdDSA' });
  expect(await ask('POST', `/v1/signing_keys/${kid}/activate`, { force: true })).toMatchObject({
    state: 'active',
  });
  const { data } = await ask('GET', '/v1/signing_keys');
  const before = data.find(({ state }: { state: string }) => state === 'retiring');
  await ask('POST', `/v1/signing_keys/${before.kid}/emergency_retire`, { reason: 'leaked' });
  const early = await served.ask('POST', `/v1/signing_keys/${kid}/retire`, { credential: deps.adminKey });
  expect(early).toMatchObject({ status: 409 });
  expect((await ask('GET', '/jwks')).keys).toEqual((await ask('GET', '/v1/jwks')).keys);
  expect(await ask('GET', '/v1/status-lists')).toEqual({ status_lists: [] });
});

it('webhook endpoints, deliveries and events', async () => {
  const created = await ask('POST', '/v1/webhook_endpoints', {
    url: 'https://hooks.example.com/in',
    event_types: ['machine.*'],
    asymmetric: true,
  });
  expect(created).toMatchObject({ secret: expect.any(String), public_key: expect.stringMatching(/^whpk_/) });
  const endpoint = `/v1/webhook_endpoints/${created.id}`;
  expect(await ask('PATCH', endpoint, { description: 'all of ours' })).toMatchObject({
    description: 'all of ours',
  });
  expect(await ask('POST', `${endpoint}/rotate_secret`)).toMatchObject({ secret: expect.any(String) });
  await ask('POST', `${endpoint}/test`);
  expect(await ask('POST', `${endpoint}/disable`)).toMatchObject({ disabled_reason: 'operator' });
  await ask('POST', `${endpoint}/enable`);
  expect(await ask('GET', endpoint)).toMatchObject({ enabled: true });
  expect((await ask('GET', '/v1/webhook_endpoints')).data).toHaveLength(1);
  const { data } = await ask('GET', `/v1/deliveries?endpoint_id=${created.id}`);
  for (const { id } of data) {
    expect(await ask('GET', `/v1/deliveries/${id}`)).toMatchObject({ attempts: [] });
    await ask('POST', `/v1/deliveries/${id}/resend`);
  }
  expect(await ask('POST', '/v1/deliveries/replay', { endpoint_id: created.id })).toMatchObject({
    is_complete: true,
  });
  expect((await ask('GET', '/v1/events?newest_first=true&limit=1')).data).toHaveLength(1);
  expect(await ask('DELETE', endpoint)).toEqual({ id: created.id, deleted: true });
});

it('usage and jobs', async () => {
  await ensureJobs(deps);
  const { id } = await ask('POST', '/v1/api_keys', { name: 'export', subject: 'user_1' });
  const other = `ak_${'0'.repeat(32)}`;
  expect((await ask('GET', `/v1/usage/api_keys?ids=${id}&ids=${other}&granularity=hour`)).data).toHaveLength(
    2,
  );
  expect((await ask('GET', '/v1/usage/subjects?subjects=user_1')).data).toMatchObject([{ id: 'user_1' }]);
  expect((await ask('GET', '/v1/jobs')).data.length).toBeGreaterThan(5);
  expect(await ask('POST', '/v1/jobs/key-rotation/run')).toMatchObject({ name: 'key-rotation' });
});

it('verifying, alone and in batches, in the names of our own API', async () => {
  const { secret } = await ask('POST', '/v1/api_keys', { name: 'export', subject: 'user_1' });
  const valid = await ask('POST', '/v1/verify', { credential: secret });
  expect(valid).toMatchObject({ valid: true, expiresAt: null });
  expect(
    await ask('POST', '/v1/verify/batch', { items: [{ credential: secret }, { credential: 'x' }] }),
  ).toEqual([valid, { valid: false, reason: 'malformed' }]);
});

it('users: invited, read, changed, disabled, signed out and deleted', async () => {
  const invitation = await ask('POST', '/v1/user_invitations', { email: 'ada@example.com' });
  expect(invitation).toMatchObject({
    user_id: null,
    link: expect.stringContaining('/oauth/invitation?value=inv_'),
  });
  expect(await ask('GET', '/v1/user_invitations')).toMatchObject({ data: [{ id: invitation.id }] });
  await ask('DELETE', `/v1/user_invitations/${invitation.id}`);
  const { id, ...user } = await newUser(deps);
  expect(await ask('GET', '/v1/users?sign_in_name=ada')).toMatchObject({ data: [{ id, name: user.name }] });
  const first = await newUserSession(deps, { id, ...user });
  await newUserSession(deps, { id, ...user });
  const changed = await ask('PATCH', `/v1/users/${id}`, { email: 'ada@example.com', email_verified: true });
  expect(changed).toMatchObject({ email: 'ada@example.com', email_verified: true });
  expect((await ask('GET', `/v1/user_sessions?subject=${id}`)).data).toHaveLength(2);
  await ask('DELETE', `/v1/user_sessions/${first.user.sessionId}`);
  expect(await ask('POST', '/v1/user_sessions/end_all', { subject: id })).toMatchObject({ ended: 1 });
  expect(await ask('POST', `/v1/users/${id}/disable`)).toMatchObject({ enabled: false });
  expect(await ask('POST', `/v1/users/${id}/enable`)).toMatchObject({ enabled: true });
  expect(await ask('GET', `/v1/users/${id}`)).toMatchObject({ source: 'local', source_subject: 'ada' });
  expect(await ask('DELETE', `/v1/users/${id}`)).toEqual({ id, deleted: true });
});

it('interactions: read, completed and denied by the host application', async () => {
  Object.assign(deps, { signIn: { kind: 'handoff', url: 'https://app.example/sign-in' } });
  const begun = {
    applicationId: null,
    parameters: {},
    step: 'sign_in' as const,
    browser: 'b',
    address: () => '192.0.2.1',
  };
  const { id } = await createInteraction(deps, begun);
  expect(await ask('GET', `/v1/interactions/${id}`)).toMatchObject({ step: 'sign_in', application: null });
  const completed = await ask('POST', `/v1/interactions/${id}/complete`, {
    subject: 'ada',
    remember_seconds: 600,
  });
  expect(completed).toMatchObject({ resume_url: expect.stringContaining('/oauth/resume?value=res_') });
  await ask('POST', `/v1/interactions/${id}/deny`, {});
});
