import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { freshFolder } from './support/deps.ts';
import { blocksOf, readPage, sectionOf } from './support/markdown.ts';
import { startNginx } from './support/nginx.ts';
import { binary } from './support/packages.ts';
import { type RunningServer, send, startServer } from './support/server.ts';
import { freePort, listening } from './support/services.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
/** Programs that compile, on a machine that has much else to do. */
const GUIDE_MS_MAX = 120_000;

/** A folder like that of somebody who has a checkout, where a server was started, and our package. */
function workplace({ adminKey }: RunningServer): string {
  const folder = freshFolder();
  mkdirSync(join(folder, 'data'));
  writeFileSync(join(folder, 'data/first-secret-key'), adminKey);
  for (const name of ['package.json', 'server', 'dist', 'node_modules'])
    symlinkSync(join(ROOT, name), join(folder, name));
  const paths = Object.fromEntries(
    ['express', 'fetch', 'm2m', 'verifier', 'errors'].map((name) => [
      `countersign/${name}`,
      [join(ROOT, `client/${name}.ts`)],
    ]),
  );
  const compilerOptions = { paths: { ...paths, countersign: [join(ROOT, 'client/index.ts')] } };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  return folder;
}

/** Writes the programs of a page where their first line says. */
function writePrograms(folder: string, text: string, language: string) {
  for (const block of blocksOf(text, language)) {
    const [, name] = /^(?:\/\/|#) (\S+\.\w+)\n/.exec(block) ?? [];
    if (name) writeFileSync(join(folder, name), block);
  }
}

/** Of somebody at a shell. */
const shellOf = ({ url }: RunningServer) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  PORT: new URL(url).port,
});

/** Of a program that asks the server. */
const environmentOf = ({ url, adminKey }: RunningServer) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  COUNTERSIGN_URL: url,
  COUNTERSIGN_SECRET_KEY: adminKey,
});

/** Types commands into a shell that stops at the first that fails; answers what they print. */
async function type(folder: string, commands: string, env: NodeJS.ProcessEnv): Promise<string> {
  const shell = spawn('sh', ['-e', '-c', commands], {
    cwd: folder,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => endGroup(shell));
  const output = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    shell[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text;
    });
  const [code] = await once(shell, 'close');
  if (code !== 0) throw new Error(`Ended with ${code}: ${output.stdout}${output.stderr}`);
  return output.stdout;
}

/** Starts a program that listens on a port. */
async function start(folder: string, command: readonly string[], env: NodeJS.ProcessEnv, port: number) {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { cwd: folder, env, detached: true, stdio: 'ignore' });
  const exit = once(child, 'exit');
  onTestFinished(async () => {
    endGroup(child);
    await exit;
  });
  await listening(port, GUIDE_MS_MAX / 2);
  return `http://127.0.0.1:${port}`;
}

/** With whatever it started; nothing where all of it is gone. */
function endGroup({ pid }: ChildProcess) {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

const TYPESCRIPT = [process.execPath, '--import', 'tsx'];

describe('docs/m2m-guide.md', () => {
  it('leads from a file of machines to a call that is let in, and to one that no longer is', {
    timeout: GUIDE_MS_MAX,
  }, async () => {
    const page = readPage('docs/m2m-guide.md').replaceAll('4501', `${await freePort()}`);
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    writePrograms(folder, page, 'ts');
    const output = await type(folder, blocksOf(page, 'sh').join(''), shellOf(server));
    const { body } = await server.call('machines.list', {});
    const { id } = body.result.data.data.find(({ name }: { name: string }) => name === 'billing');
    expect(output).toContain(`201 {"writtenBy":"${id}"}`);
    const [, afterwards = ''] = output.split(`201 {"writtenBy":"${id}"}`);
    expect(afterwards).toMatch(/^\n401\n/);
    expect(afterwards).toMatch(/\n(401 .*"reason":"unknown".*|.*refused)\n/);
  });
});

describe('docs/api-keys-guide.md', () => {
  const page = readPage('docs/api-keys-guide.md');

  it('leads from two secret keys to a key that is limited, rotated and revoked', async () => {
    const server = await startServer(freshFolder());
    const output = await type(workplace(server), blocksOf(page, 'sh').join(''), shellOf(server));
    const bodies = output.split(/(?<=\})\n?(?=\{)/).map((text) => JSON.parse(text));
    expect(bodies).toEqual([
      expect.objectContaining({ name: 'standard', is_default: true }),
      expect.objectContaining({
        valid: true,
        subject: 'org_7',
        claims: { plan: 'pro' },
        scopes: ['invoices:read'],
      }),
      expect.objectContaining({ id: 'org_7', rate_limit: { count: 1000, window_seconds: 3600 } }),
      expect.objectContaining({ valid: true, rateLimit: expect.objectContaining({ count: 100 }) }),
      expect.objectContaining({ valid: true }),
      expect.objectContaining({ revoked: true, revocation_reason: 'no_longer_used' }),
      expect.objectContaining({ revoked: 0 }),
      expect.objectContaining({ valid: false, reason: 'revoked' }),
    ]);
  });

  it('protects an API', { timeout: GUIDE_MS_MAX }, async () => {
    const port = await freePort();
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    writePrograms(folder, page.replaceAll('4502', `${port}`), 'ts');
    const url = await start(folder, [...TYPESCRIPT, 'api.ts'], environmentOf(server), port);
    const { body } = await server.call('apiKeys.create', {
      name: 'export',
      subject: 'org_7',
      scopes: ['invoices:read'],
    });
    const asking = (key: string) => send(`${url}/invoices`, { headers: { 'x-api-key': key } });
    expect(await asking(body.result.data.secret)).toMatchObject({ status: 200, body: { subject: 'org_7' } });
    expect(await asking('ak_none')).toMatchObject({ status: 401 });
  });
});

/** What a gate must do that wants API keys with the scope `invoices:read`, and says of whom the request is. */
async function expectGate(url: string, server: RunningServer) {
  const keyWith = async (scopes: string[], more = {}) => {
    const name = [...scopes, ...Object.keys(more)].join();
    const { body } = await server.call('apiKeys.create', { name, subject: 'org_7', scopes, ...more });
    return body.result.data.secret as string;
  };
  const asking = async (authorization?: string, headers = {}) => {
    const given = authorization === undefined ? headers : { authorization, ...headers };
    const { status, body } = await send(`${url}/invoices`, { headers: given });
    return { status, body };
  };
  const key = await keyWith(['invoices:read']);
  expect(await asking(`Bearer ${key}`)).toEqual({ status: 200, body: 'org_7' });
  expect(await asking(`bearer ${key}`, { 'x-countersign-subject': 'org_1' })).toEqual({
    status: 200,
    body: 'org_7',
  });
  for (const nobody of [
    undefined,
    '',
    'Bearer',
    'Basic abc',
    `Bearer ${key}x`,
    'Bearer ak_","valid":true,"x":"',
  ])
    expect({ nobody, status: (await asking(nobody)).status }).toEqual({
      nobody,
      status: expect.toSatisfy((status) => status === 401 || status === 400),
    });
  expect(await asking(`Bearer ${await keyWith(['invoices:write'])}`)).toMatchObject({ status: 403 });
  return {
    asking,
    async expectLimited() {
      const limited = await keyWith(['invoices:read'], { rateLimit: { count: 1, windowSeconds: 3600 } });
      expect(await asking(`Bearer ${limited}`)).toMatchObject({ status: 200 });
      expect(await asking(`Bearer ${limited}`)).toMatchObject({ status: 429 });
    },
    async expectRefusedWhenDown() {
      // Not asked for before: who has a memory has nothing in it.
      const fresh = await keyWith(['invoices:read', 'more']);
      await server.stop('SIGKILL');
      expect(await asking(`Bearer ${fresh}`)).toMatchObject({ status: 503 });
    },
  };
}

const python = inject('python');
const itWithPython = python.path ? it : it.skip;
const named = (name: string, missing: string) => (missing ? `${name} [skipped: ${missing}]` : name);

describe('docs/python-and-go.md', () => {
  const page = readPage('docs/python-and-go.md');

  itWithPython(named('protects a WSGI application', python.missing), { timeout: GUIDE_MS_MAX }, async () => {
    const port = await freePort();
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    writePrograms(folder, page.replaceAll('4503', `${port}`), 'python');
    const url = await start(folder, [python.path ?? '', 'app.py'], environmentOf(server), port);
    const gate = await expectGate(url, server);
    await gate.expectLimited();
    await gate.expectRefusedWhenDown();
  });

  const go = golang();
  const goMissing = go ? '' : 'Go is missing, and is too much to be installed for this';
  const itWithGo = go ? it : it.skip;
  itWithGo(named('protects a handler in Go', goMissing), { timeout: GUIDE_MS_MAX }, async () => {
    const port = await freePort();
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    writePrograms(folder, page.replaceAll('4504', `${port}`), 'go');
    const env = { PATH: process.env['PATH'], HOME: folder, GO111MODULE: 'off', GOFLAGS: '' };
    await promisify(execFile)(go ?? '', ['vet', 'main.go'], { cwd: folder, env });
    await promisify(execFile)(go ?? '', ['build', '-o', 'gate', 'main.go'], { cwd: folder, env });
    const { stdout } = await promisify(execFile)(join(dirname(go ?? ''), 'gofmt'), ['-l', 'main.go'], {
      cwd: folder,
    });
    expect(stdout).toBe('');
    const url = await start(folder, ['./gate'], environmentOf(server), port);
    const gate = await expectGate(url, server);
    await gate.expectLimited();
    await gate.expectRefusedWhenDown();
  });

  /** Debian keeps each version in a folder of its own. */
  function golang(): string | null {
    const folders = existsSync('/usr/lib')
      ? readdirSync('/usr/lib').filter((name) => /^go-\d/.test(name))
      : [];
    const paths = [
      process.env['PATH'],
      ...folders.map((name) => `/usr/lib/${name}/bin`),
      '/usr/local/go/bin',
    ];
    return binary('go', paths.join(':'));
  }
});

describe('docs/status-list.md', () => {
  itWithPython(named('has Python judge M2M JWTs without asking', python.missing), async () => {
    const server = await startServer(freshFolder());
    const [program = ''] = blocksOf(sectionOf(readPage('docs/status-list.md'), 'Python'), 'python');
    const folder = freshFolder();
    writeFileSync(join(folder, 'tokens.py'), program.replace('https://auth.example.com', server.url));
    const create = async (path: string, input: object, credential?: string) =>
      (await server.call(path, input, credential)).body.result.data;
    const ledger = await create('machines.create', { name: 'ledger' });
    const billing = await create('machines.create', { name: 'billing' });
    await create('machineScopes.create', { fromMachineId: billing.id, toMachineId: ledger.id });
    const mint = () => create('m2mTokens.create', { format: 'jwt' }, billing.secret);
    const [live, dead] = [await mint(), await mint()];
    await create('m2mTokens.revoke', { id: dead.id });
    const judge = `
import sys, jwt
from tokens import authenticate
for token in sys.argv[2:]:
    try:
        print(authenticate(token, sys.argv[1])["sub"])
    except jwt.InvalidTokenError as error:
        print(type(error).__name__)
`;
    const judged = async (audience: string) => {
      const args = ['-c', judge, audience, live.token, dead.token, `${live.token}x`];
      const { stdout } = await promisify(execFile)(python.path ?? '', args, { cwd: folder });
      return stdout.trim().split('\n');
    };
    expect(await judged(ledger.id)).toEqual([billing.id, 'InvalidTokenError', 'InvalidSignatureError']);
    expect(await judged(billing.id)).toEqual([
      'InvalidAudienceError',
      'InvalidAudienceError',
      'InvalidSignatureError',
    ]);
  });
});

describe('docs/mcp.md', () => {
  it('leads from a server for agents to a tool that is called, one that takes more, and a token that is revoked', {
    timeout: GUIDE_MS_MAX,
  }, async () => {
    const page = readPage('docs/mcp.md').replaceAll('4506', `${await freePort()}`);
    const server = await startServer(freshFolder(), { COUNTERSIGN_OAUTH_CLIENTS: 'mcp' });
    const folder = workplace(server);
    for (const name of ['examples', 'client']) symlinkSync(join(ROOT, name), join(folder, name));
    const printed = await type(folder, blocksOf(page, 'sh').join(''), shellOf(server));
    const output = printed.replaceAll('\r', '');
    expect(output).toMatch(
      /HTTP\/1\.1 401 .*\nwww-authenticate: Bearer realm="countersign", scope="notes:read", resource_metadata=/i,
    );
    expect(output).toContain(
      `"authorization_servers":["${server.url}"],"scopes_supported":["notes:read","notes:write"]`,
    );
    expect(output).toContain(
      '{"result":{"content":[{"type":"text","text":"No notes"}]},"jsonrpc":"2.0","id":1}',
    );
    expect(output).toMatch(
      /HTTP\/1\.1 403 .*\nwww-authenticate: .*error="insufficient_scope".*scope="notes:read notes:write"/i,
    );
    expect(output).toMatch(/HTTP\/1\.1 401 Unauthorized\s*$/);
  });

  it('shows the part of the example that matters, as it is', () => {
    const [shown = ''] = blocksOf(readPage('docs/mcp.md'), 'ts');
    const source = readPage('examples/mcp-server/application.ts').replaceAll(/\s+/g, ' ');
    for (const statement of shown.trim().split(/(?<=;)\n/))
      expect(source).toContain(statement.replaceAll(/\s+/g, ' '));
  });
});

describe('docs/nginx-and-envoy.md', () => {
  const page = readPage('docs/nginx-and-envoy.md');
  const nginx = inject('nginx');
  const itWithNginx = nginx.path ? it : it.skip;
  const [besideService = '', alone = ''] = blocksOf(page, 'nginx');

  /** A service that knows nothing of it: it says whose the request is, by the header that it is told. */
  async function startService(): Promise<number> {
    const service = createServer((request, response) => {
      const { authorization = '', 'x-countersign-subject': subject = '' } = request.headers;
      response.end(authorization + decodeURIComponent(String(subject)));
    });
    service.listen(0, '127.0.0.1');
    await once(service, 'listening');
    onTestFinished(() => {
      service.closeAllConnections();
      service.close();
    });
    return (service.address() as { port: number }).port;
  }

  async function startAuth(server: RunningServer): Promise<number> {
    const port = await freePort();
    const folder = workplace(server);
    writePrograms(folder, page.replaceAll('4505', `${port}`), 'ts');
    await start(folder, [...TYPESCRIPT, 'forward-auth.ts'], environmentOf(server), port);
    return port;
  }

  itWithNginx(named('nginx asks a small service', nginx.missing), { timeout: GUIDE_MS_MAX }, async () => {
    const server = await startServer(freshFolder());
    const port = await freePort();
    const config = besideService
      .replace('4505', `${await startAuth(server)}`)
      .replace('8080', `${port}`)
      .replace('3000', `${await startService()}`);
    await startNginx(config, port);
    const gate = await expectGate(`http://127.0.0.1:${port}`, server);
    expect((await send(`http://127.0.0.1:${port}/auth/read-invoices`)).status).toBe(404);
    await gate.expectLimited();
    await gate.expectRefusedWhenDown();
  });

  it('Envoy is told what to do in the same way: by the status, and whose it is', {
    timeout: GUIDE_MS_MAX,
  }, async () => {
    const server = await startServer(freshFolder());
    const url = `http://127.0.0.1:${await startAuth(server)}`;
    const { body } = await server.call('apiKeys.create', {
      name: 'reader',
      subject: 'Jürgen',
      scopes: ['invoices:read'],
    });
    // Envoy asks by the method of the request, and with its path behind the prefix.
    const asking = (path: string, key: string) =>
      send(`${url}${path}`, { method: 'POST', headers: { authorization: `Bearer ${key}` } });
    const passed = await asking('/read-invoices/invoices/7?x=1', body.result.data.secret);
    expect(passed.status).toBe(200);
    expect(passed.headers.get('x-countersign-subject')).toBe('J%C3%BCrgen');
    expect((await asking('/write-invoices/invoices/7', body.result.data.secret)).status).toBe(403);
    expect((await asking('/invoices/7', body.result.data.secret)).status).toBe(403);
    expect((await asking('/read-invoices', 'ak_none')).status).toBe(401);
  });

  itWithNginx(named('nginx asks by itself', nginx.missing), { timeout: GUIDE_MS_MAX }, async () => {
    const server = await startServer(freshFolder());
    const port = await freePort();
    const [script = ''] = blocksOf(page, 'js');
    const modules = existsSync('/usr/lib/nginx/modules') ? '/usr/lib/nginx/modules/' : 'modules/';
    const config = alone
      .replace('4400', new URL(server.url).port)
      .replace('8080', `${port}`)
      .replace('3000', `${await startService()}`)
      .replace('modules/', modules);
    const key = `proxy_set_header Authorization "Bearer ${server.adminKey}";`;
    await startNginx(config, port, { 'countersign.js': script, 'countersign-key.conf': key });
    const gate = await expectGate(`http://127.0.0.1:${port}`, server);
    await gate.expectLimited();
    for (const path of ['/_countersign', '/_countersign/verify'])
      expect((await send(`http://127.0.0.1:${port}${path}`)).status).toBe(404);
    await gate.expectRefusedWhenDown();
  });

  it('has filters for Envoy that are YAML, and name the routes of the server', () => {
    const [asking, jwt] = blocksOf(page, 'yaml').map((block) => parse(block)[0].typed_config);
    expect(asking.http_service.path_prefix).toBe('/read-invoices');
    expect(page).toContain(`['${asking.http_service.path_prefix.slice(1)}', protect(`);
    expect(jwt.providers.countersign.remote_jwks.http_uri.uri).toMatch(/\/\.well-known\/jwks\.json$/);
  });
});

describe('docs/migrating-api-keys.md', () => {
  const page = readPage('docs/migrating-api-keys.md');

  it('brings keys by hash and by value, of which the old values verify', {
    timeout: GUIDE_MS_MAX,
  }, async () => {
    const server = await startServer(freshFolder());
    const commands = blocksOf(sectionOf(page, 'From keys of your own'), 'sh').join('');
    const output = await type(workplace(server), commands, shellOf(server));
    expect(output).toMatch(/"valid": ?true,[\s\S]*"subject": ?"user_42"/);
    const { body } = await server.call('credentials.verify', {
      credential: 'acme_live_000102030405060708090a0b',
    });
    expect(body.result.data).toMatchObject({ valid: true, subject: 'org_7', scopes: ['invoices:read'] });
  });

  it('brings keys when they are used', { timeout: GUIDE_MS_MAX }, async () => {
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    writePrograms(folder, page, 'ts');
    writeFileSync(
      join(folder, 'use.ts'),
      `import { createCountersign } from 'countersign';
       import { verifyOrAdopt } from './adopt.ts';
       const old = { subject: 'user_7', name: 'old', scopes: ['read'] };
       let asked = 0;
       const judge = async (value: string) => (asked++, value === 'acme_live_right' ? old : null);
       const seen = [];
       for (const value of ['acme_live_wrong', 'acme_live_right', 'acme_live_right'])
         seen.push(await verifyOrAdopt(createCountersign(), value, judge));
       process.stdout.write(JSON.stringify({ seen, asked }));`,
    );
    const { seen, asked } = JSON.parse(
      await type(folder, `${TYPESCRIPT.join(' ')} use.ts`, environmentOf(server)),
    );
    expect(seen).toEqual([
      { valid: false, reason: expect.stringMatching(/malformed|unknown/) },
      expect.objectContaining({ valid: true, subject: 'user_7' }),
      expect.objectContaining({ valid: true, subject: 'user_7' }),
    ]);
    expect(asked).toBe(2);
  });

  it('brings keys from Unkey', { timeout: GUIDE_MS_MAX }, async () => {
    const server = await startServer(freshFolder());
    const folder = workplace(server);
    const section = sectionOf(page, 'From Unkey');
    writePrograms(folder, section, 'js');
    const key = {
      keyId: 'key_1234567890abcdef',
      start: 'acme_test_abc',
      enabled: true,
      name: 'Production',
      meta: { plan: 'pro' },
      createdAt: 1_701_425_400_000,
      identity: { id: 'id_1', externalId: 'user_42' },
      permissions: ['documents.read'],
      ratelimits: [{ id: 'rl_1', name: 'requests', limit: 100, duration: 60_000, autoApply: true }],
    };
    const pages = [
      {
        meta: {},
        data: [{ ...key, plaintext: 'acme_test_abcdefghijklmnop' }],
        pagination: { hasMore: true },
      },
      { meta: {}, data: [{ ...key, keyId: 'key_2', name: 'Not recoverable' }] },
    ];
    writeFileSync(join(folder, 'unkey-pages.json'), pages.map((each) => JSON.stringify(each)).join('\n'));
    await type(folder, blocksOf(section, 'sh').join(''), environmentOf(server));
    const { body } = await server.call('credentials.verify', { credential: 'acme_test_abcdefghijklmnop' });
    expect(body.result.data).toMatchObject({
      valid: true,
      subject: 'user_42',
      name: 'Production',
      claims: { plan: 'pro' },
      scopes: ['documents.read'],
      rateLimit: { count: 100, windowSeconds: 60, remaining: 99 },
    });
    expect(existsSync(join(folder, 'unkey.ndjson'))).toBe(false);
  });
});
