import { describe, expect, inject, it } from 'vitest';
import { freshFolder } from '../support/deps.ts';
import { ownRedis } from '../support/redis.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const { url: redisUrl, missing } = inject('redis');

const basic = (credential: string) => ({
  authorization: `Basic ${Buffer.from(`anybody:${credential}`).toString('base64')}`,
});

async function start(env: NodeJS.ProcessEnv): Promise<RunningServer> {
  return startServer(freshFolder(), env);
}

it('without Redis there is no board', async () => {
  const server = await start({});
  const answer = await send(`${server.url}/queues`, { headers: basic(server.adminKey) });
  expect([answer.status, answer.body.errors[0].code]).toEqual([404, 'not_found']);
});

describe.skipIf(redisUrl === null)(`the board of the queue${redisUrl === null ? `: ${missing}` : ''}`, () => {
  const env = { REDIS_URL: redisUrl ?? '' };

  it('is for admins alone, by a browser or with a bearer', async () => {
    const server = await start(env);
    const { body } = await server.call('secretKeys.create', { name: 'reader', role: 'read' });
    const reader = body.result.data.secret;
    const page = `${server.url}/queues/`;
    const nobody = await send(page);
    expect([nobody.status, nobody.headers.get('www-authenticate')]).toEqual([
      401,
      'Basic realm="Countersign, queues", charset="UTF-8"',
    ]);
    for (const wrong of ['', 'sk_wrong', `${server.adminKey}x`])
      expect((await send(page, { headers: basic(wrong) })).status).toBe(401);
    expect((await send(page, { headers: { authorization: 'Basic %%%' } })).status).toBe(401);
    expect((await send(page, { headers: basic(reader) })).status).toBe(403);
    expect((await send(page, { headers: { authorization: `Bearer ${server.adminKey}` } })).status).toBe(200);
    expect((await send(`${page}api/queues`)).status).toBe(401);
    expect((await send(`${page}static/js/none.js`)).status).toBe(401);

    const shown = await send(page, { headers: basic(server.adminKey) });
    expect(shown.status).toBe(200);
    expect(shown.body).toContain('Countersign, queues');
    expect(shown.body).not.toContain(server.adminKey);
    const [, script = ''] = /src="(static\/js\/main[^"]+)"/.exec(shown.body) ?? [];
    const loaded = await send(`${page}${script}`, { headers: basic(server.adminKey) });
    expect([loaded.status, loaded.headers.get('content-type')]).toEqual([
      200,
      expect.stringContaining('javascript'),
    ]);
  });

  it('may run no script but its own, and reach no path but its own', async () => {
    const server = await start({
      ...env,
      COUNTERSIGN_PUBLIC_URL: 'https://keys.example',
      PORT: `${await freePort()}`,
    });
    const { headers } = await send(`${server.url}/queues/`, { headers: basic(server.adminKey) });
    const policy = headers.get('content-security-policy') ?? '';
    expect(policy.split('; ')).toEqual(
      expect.arrayContaining([
        "default-src 'none'",
        'script-src https://keys.example/queues/static/',
        'connect-src https://keys.example/queues/api/ https://keys.example/queues/static/',
        "frame-ancestors 'none'",
        'sandbox allow-scripts allow-same-origin',
      ]),
    );
    // The rest of the server says what it always said.
    expect((await send(`${server.url}/`)).headers.get('content-security-policy')).not.toContain('sandbox');
  });

  it('says so while Redis cannot be reached, and is there once it can', async () => {
    const redis = await ownRedis();
    const server = await start({ REDIS_URL: redis.url });
    const ask = () => send(`${server.url}/queues/`, { headers: basic(server.adminKey) });
    const away = await ask();
    expect([away.status, away.body.errors[0].code]).toEqual([503, 'unavailable']);
    await redis.start();
    expect((await ask()).status).toBe(200);
  });

  it('shows the queue, and changes nothing', async () => {
    const server = await start(env);
    const headers = basic(server.adminKey);
    const { body } = await send(`${server.url}/queues/api/queues`, { headers });
    expect(body.queues).toEqual([
      expect.objectContaining({ name: expect.stringMatching(/^bundles-/), readOnlyMode: true }),
    ]);
    const name = encodeURIComponent(body.queues[0].name);
    for (const path of [`${name}/pause`, `${name}/empty`, `${name}/add`, `${name}/clean/failed`]) {
      for (const method of ['PUT', 'POST', 'PATCH', 'DELETE']) {
        const { status, headers: told } = await send(`${server.url}/queues/api/queues/${path}`, {
          method,
          headers,
        });
        expect([status, told.get('allow')]).toEqual([405, 'GET, HEAD']);
      }
    }
    expect(await server.stop()).toBe(0);
  });
});
