import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { clientVerifier, protect } from '../../client/express.ts';
import { createCountersign } from '../../client/index.ts';
import { freshFolder } from '../support/deps.ts';
import { listen } from '../support/procedures.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';
import { freePort, listening } from '../support/services.ts';
import { type Started, startAuthorizationServer } from '../support/started.ts';

const FOLDER = fileURLToPath(new URL('../../examples/python/', import.meta.url));
const PYTHON_MS_MAX = 60_000;

const { path: python, missing } = inject('authlib');
const describeWithAuthlib = python ? describe : describe.skip;
const titled = (name: string) => (missing ? `${name} [skipped: ${missing}]` : name);

interface Running {
  process: ChildProcess;
  /** Resolves when it has printed what matches. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Ends by itself; answers what it printed. Throws where it failed. */
  ended(): Promise<string>;
}

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Running {
  const child = spawn(python ?? '', [program, ...args], {
    cwd: FOLDER,
    env: { PATH: process.env['PATH'], PYTHONDONTWRITEBYTECODE: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(child, 'close');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exit;
  });
  const output = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text;
    });
  return {
    process: child,
    async printed(pattern) {
      await expect.poll(() => output.stdout, { timeout: PYTHON_MS_MAX / 2 }).toMatch(pattern);
      return pattern.exec(output.stdout) as RegExpExecArray;
    },
    async ended() {
      const [code] = await exit;
      if (code !== 0) throw new Error(`Ended with ${code}: ${output.stdout}${output.stderr}`);
      return output.stdout;
    },
  };
}

/** Calls a procedure, and answers what it does. */
async function create(server: RunningServer, path: string, input: object) {
  const { status, body } = await server.call(path, input);
  expect({ path, status, error: body.error }).toEqual({ path, status: 200, error: undefined });
  return body.result.data;
}

const idAndSecret = ({ clientId, secret }: { clientId: string; secret: string }) => ({
  CLIENT_ID: clientId,
  CLIENT_SECRET: secret,
});

/** A server with a scope of an API, and the API, that judges its tokens in Python. */
async function startApi(environment: (server: RunningServer) => Promise<NodeJS.ProcessEnv>) {
  const server = await startServer(freshFolder(), {}, { byNpm: 'once built' });
  const port = await freePort();
  const resource = `http://127.0.0.1:${port}`;
  await create(server, 'oauthScopes.create', {
    name: 'invoices:read',
    description: 'Read your invoices',
    resource,
  });
  const own = { COUNTERSIGN_URL: server.url, RESOURCE: resource, ...(await environment(server)) };
  run('resource_server.py', [], own);
  await listening(port, PYTHON_MS_MAX / 2);
  const asking = (token: string) => send(resource, { headers: { authorization: `Bearer ${token}` } });
  return { server, resource, asking };
}

const application = (server: RunningServer, more: object) =>
  create(server, 'oauthApplications.create', {
    name: 'reports',
    grantTypes: ['client_credentials'],
    scopes: ['invoices:read'],
    ...more,
  });

async function tokenOf(server: RunningServer, { clientId = '', secret = '' }, more: Record<string, string>) {
  const { status, body } = await send(`${server.url}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: clientId,
      client_secret: secret,
      ...more,
    }),
  });
  expect(status).toBe(200);
  return body.access_token as string;
}

describeWithAuthlib(titled('examples/python by Authlib'), { timeout: PYTHON_MS_MAX }, () => {
  it('an application calls an API that judges its JWTs by the published keys alone', async () => {
    const { server, resource, asking } = await startApi(async () => ({}));
    const reports = await application(server, { accessTokenFormat: 'jwt' });
    const env = { COUNTERSIGN_URL: server.url, RESOURCE: resource, ...idAndSecret(reports) };
    expect(await run('service.py', [resource], { ...env, SCOPE: 'invoices:read' }).ended()).toBe(
      `200 ${JSON.stringify({ subject: reports.clientId, client: reports.clientId }).replaceAll(/([:,])"/g, '$1 "')}\n`,
    );

    const token = await tokenOf(server, reports, { resource });
    expect(await asking(token)).toMatchObject({ status: 200, body: { subject: reports.clientId } });
    const elsewhere = await tokenOf(server, reports, { resource: 'https://other.example.com' });
    const nowhere = await tokenOf(server, reports, {});
    const opaque = await tokenOf(server, await application(server, { name: 'opaque' }), { resource });
    const machine = await create(server, 'machines.create', { name: 'billing' });
    const m2m = await tokenOf(
      server,
      { clientId: machine.id, secret: machine.secret },
      { token_format: 'jwt' },
    );
    const [header = '', payload = ''] = token.split('.');
    const unsigned = `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url')}.${payload}.`;
    for (const bad of [elsewhere, nowhere, opaque, m2m, unsigned, `${header}.${payload}.AAAA`, 'x.y.z', 'x'])
      expect(await asking(bad)).toMatchObject({ status: 401 });

    const scopeless = await application(server, { name: 'scopeless', accessTokenFormat: 'jwt', scopes: [] });
    const refused = await asking(await tokenOf(server, scopeless, { resource }));
    expect(refused.status).toBe(403);
    expect(refused.headers.get('www-authenticate')).toBe(
      `Bearer scope="invoices:read", resource_metadata="${resource}/.well-known/oauth-protected-resource", error="insufficient_scope"`,
    );

    await server.stop();
    expect(await asking(token)).toMatchObject({ status: 200 });
  });

  it('an API that has a key asks for opaque tokens, and hears at once that one was revoked', async () => {
    const { server, resource, asking } = await startApi(async (server) => {
      const key = await create(server, 'secretKeys.create', { name: 'api', role: 'verify' });
      return { COUNTERSIGN_SECRET_KEY: key.secret };
    });
    const reports = await application(server, {});
    const token = await tokenOf(server, reports, { resource });
    expect(await asking(token)).toMatchObject({ status: 200, body: { client: reports.clientId } });
    expect((await asking(await tokenOf(server, reports, {}))).status).toBe(401);
    expect((await asking('oat_none')).status).toBe(401);
    const revoked = await send(`${server.url}/oauth/revoke`, {
      method: 'POST',
      body: new URLSearchParams({ token, client_id: reports.clientId, client_secret: reports.secret }),
    });
    expect(revoked.status).toBe(200);
    expect((await asking(token)).status).toBe(401);
    const another = await tokenOf(server, reports, { resource });
    await server.stop();
    expect((await asking(another)).status).toBe(503);
  });

  it('a machine is an OAuth client, and its token is for the machine that it calls', async () => {
    const server = await startServer(freshFolder(), {}, { byNpm: 'once built' });
    const [billing, ledger] = [
      await create(server, 'machines.create', { name: 'billing' }),
      await create(server, 'machines.create', { name: 'ledger' }),
    ];
    await create(server, 'machineScopes.create', {
      fromMachineId: billing.id,
      toMachineId: ledger.id,
      scopes: ['entries:write'],
    });
    const verifier = clientVerifier(createCountersign({ url: server.url, machineSecretKey: ledger.secret }));
    const entries = protect({ verifier, kinds: ['m2m_token'], scopes: ['entries:write'] });
    const service = await listen((request, response) =>
      entries(request, response, () => response.end(entries.authOf(request).machineId)),
    );
    const env = {
      COUNTERSIGN_URL: server.url,
      CLIENT_ID: billing.id,
      CLIENT_SECRET: billing.secret,
      RESOURCE: ledger.id,
      SCOPE: 'entries:write',
    };
    expect(await run('service.py', [service.url], env).ended()).toBe(`200 ${billing.id}\n`);
    await expect(
      run('service.py', [service.url], { ...env, CLIENT_SECRET: ledger.secret }).ended(),
    ).rejects.toThrow('invalid_client');
  });

  it('somebody signs in by a browser, for a public and a confidential application, which refreshes, and ends it', async () => {
    const server = await startAuthorizationServer({ whenDone: onTestFinished });
    for (const isPublic of [true, false]) await signInByBrowser(server, isPublic);
  });
});

async function signInByBrowser(server: Started, isPublic: boolean) {
  const { id, clientId, secret } = await server.application({
    redirectUris: ['http://127.0.0.1/callback'],
    public: isPublic,
  });
  const program = run('sign_in.py', [], {
    COUNTERSIGN_URL: server.url,
    CLIENT_ID: clientId,
    ...(!isPublic && { CLIENT_SECRET: secret }),
  });
  const [, start = ''] = await program.printed(/^Open (\S+)\n/);
  const { left } = await server.allow(start);
  expect(await (await fetch(left?.url ?? '')).text()).toBe('You can close this window.');
  const { data } = await server.administer('oauthGrants.list', { applicationId: id });
  const sub = data[0].subject;

  const said = (await program.ended()).trim().split('\n').slice(1);
  const told = Object.fromEntries(
    said.map((line) => [/^\w+( in)?/.exec(line)?.[0], JSON.parse(line.replace(/^\w+( in)? /, ''))]),
  );
  const scope = 'openid profile email offline_access';
  expect(told).toEqual({
    'signed in': { sub, scope },
    userinfo: expect.objectContaining({ sub, name: 'Ada Lovelace' }),
    refreshed: { rotated: true },
    ...(!isPublic && { introspected: { active: true, sub, scope } }),
    revoked: { status: 200, userinfo: 401 },
    refused: 'invalid_grant',
  });
}
