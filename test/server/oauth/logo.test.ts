import { describe, expect, it } from 'vitest';
import { LOGO_BYTES_MAX, logoTypeOf } from '../../../server/domain/oauth-logos.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { openTestDeps, type TestDeps } from '../../support/deps.ts';
import { serveProcedures } from '../../support/procedures.ts';
import { serveRest } from '../../support/rest.ts';
import { type Answer, send } from '../../support/server.ts';

const GIF = Buffer.from('R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==', 'base64');
const PNG = Buffer.from('\x89PNG\r\n\x1a\n…', 'latin1');
const SVG = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>');

describe('logoTypeOf()', () => {
  it.each([
    ['image/jpeg', '\xff\xd8\xff\xe0'],
    ['image/png', '\x89PNG\r\n\x1a\n'],
    ['image/gif', 'GIF87a'],
    ['image/gif', 'GIF89a'],
    ['image/webp', 'RIFF\0\0\0\0WEBPVP8 '],
    [null, ''],
    [null, 'GIF88a'],
    [null, 'RIFF\0\0\0\0WAVE'],
    [null, 'RIFFWEBP'],
    [null, ' \x89PNG\r\n\x1a\n'],
    [null, '<svg xmlns="http://www.w3.org/2000/svg">'],
    [null, '<!doctype html><script>'],
    [null, '%PDF-1.7'],
    [null, 'BM'],
  ])('says %s of what begins %j', (type, beginning) => {
    expect(logoTypeOf(Buffer.from(beginning, 'latin1'))).toBe(type);
  });
});

interface Served {
  deps: TestDeps;
  /** Where pages get it. */
  url: string;
  id: string;
  put(body: NonNullable<RequestInit['body']>, headers?: Record<string, string>): Promise<Answer>;
}

async function serve(): Promise<Served> {
  const deps = await openTestDeps('sqlite');
  const { url: rest } = await serveRest(deps);
  const { url } = await serveProcedures(deps);
  const { id } = (await call(deps, deps.adminKey, 'oauthApplications.create', {
    name: 'Notes',
    redirectUris: ['https://notes.example/cb'],
  })) as { id: string };
  return {
    deps,
    url,
    id,
    put: (body, headers = {}) =>
      send(`${rest}/v1/oauth_applications/${id}/logo`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${deps.adminKey}`, ...headers },
        body,
      }),
  };
}

function formOf(bytes: Buffer, more: Record<string, string> = {}, type = 'image/png'): FormData {
  const form = new FormData();
  form.set('file', new Blob([new Uint8Array(bytes)], { type }), 'logo.png');
  for (const [name, value] of Object.entries(more)) form.set(name, value);
  return form;
}

describe('PUT /v1/oauth_applications/{id}/logo', () => {
  it('keeps a file as Clerk has it sent, whatever it is said to be, and answers the application', async () => {
    const { deps, url, put } = await serve();
    const { status, body } = await put(formOf(GIF, { uploader_user_id: 'user_1' }));
    expect(status).toBe(200);
    expect(body).toMatchObject({ object: 'oauth_application', name: 'Notes' });
    const path = new URL(body.client_image_url).pathname;
    const shown = await fetch(`${url}${path}`);
    expect(shown.status).toBe(200);
    expect(Object.fromEntries(shown.headers)).toMatchObject({
      'content-type': 'image/gif',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; sandbox",
    });
    expect(Buffer.from(await shown.arrayBuffer())).toEqual(GIF);

    deps.clock.now += 1_000;
    const again = await put(formOf(PNG));
    expect(again.body.client_image_url).not.toBe(body.client_image_url);
    expect((await fetch(`${url}${path}`)).headers.get('content-type')).toBe('image/png');
  });

  it.each<[string, (served: Served) => Promise<Answer>, number]>([
    ['an image that runs', ({ put }) => put(formOf(SVG)), 400],
    ['a page', ({ put }) => put(formOf(Buffer.from('<html>'))), 400],
    ['nothing', ({ put }) => put(formOf(Buffer.alloc(0))), 400],
    ['no file', ({ put }) => put(formOf(GIF, { file: 'text' })), 400],
    ['another part', ({ put }) => put(formOf(GIF, { other: 'x' })), 400],
    ['one too large', ({ put }) => put(formOf(Buffer.concat([GIF, Buffer.alloc(LOGO_BYTES_MAX)]))), 413],
    ['one much too large', ({ put }) => put(formOf(Buffer.alloc(3 * LOGO_BYTES_MAX))), 413],
    ['JSON', ({ put }) => put('{}', { 'content-type': 'application/json' }), 415],
    ['no boundary', ({ put }) => put('x', { 'content-type': 'multipart/form-data' }), 415],
    [
      'what is no multipart',
      ({ put }) => put('x', { 'content-type': 'multipart/form-data; boundary=x' }),
      400,
    ],
    ['a caller who is not known', ({ put }) => put(formOf(GIF), { authorization: 'Bearer x' }), 401],
  ])('refuses %s', async (_, ask, status) => {
    const served = await serve();
    expect((await ask(served)).status).toBe(status);
    const { db, tables } = served.deps.store.read;
    expect(await db.select().from(tables.oauthLogos)).toEqual([]);
  });

  it('refuses a file for an application that is not there', async () => {
    const { url, deps } = await serve();
    const answer = await send(`${url}/v1/oauth_applications/oauthapp_${'0'.repeat(27)}/logo`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${deps.adminKey}` },
      body: formOf(GIF),
    });
    expect(answer).toMatchObject({ status: 404, body: { errors: [{ code: 'resource_not_found' }] } });
  });
});

describe('oauthLogos', () => {
  it('sets it from base64, takes it away, and it goes with its application', async () => {
    const { deps, url, id } = await serve();
    const set = (content: string) =>
      call(deps, deps.adminKey, 'oauthLogos.set', { applicationId: id, content }) as Promise<object>;
    const statusOf = async () => (await fetch(`${url}/oauth/logos/${id}`)).status;

    expect(await set(GIF.toString('base64'))).toMatchObject({ logoUpdatedAt: deps.clock.now });
    expect(await statusOf()).toBe(200);
    expect(await outcomeOf(set(SVG.toString('base64')))).toBe('invalid_input');
    expect(await outcomeOf(set('not base64'))).toBe('invalid_input');
    expect(await call(deps, deps.adminKey, 'oauthLogos.delete', { applicationId: id })).toMatchObject({
      logoUpdatedAt: null,
    });
    expect(await statusOf()).toBe(404);
    await set(GIF.toString('base64'));
    await call(deps, deps.adminKey, 'oauthApplications.delete', { id });
    expect(await statusOf()).toBe(404);
  });

  it('is nowhere for ids that are none', async () => {
    const { url } = await serve();
    for (const id of ['', 'x', '..%2f', `oauthapp_${'0'.repeat(27)}`, `oauthapp_${'0'.repeat(27)}/x`])
      expect((await fetch(`${url}/oauth/logos/${id}`)).status).toBe(404);
  });
});
