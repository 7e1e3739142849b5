import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it, vi } from 'vitest';
import { parse } from 'yaml';
import { loadConfig, SETTINGS } from '../server/config.ts';
import { emptyDatabase, freshFolder } from './support/deps.ts';
import { blocksOf, readPage, sectionOf } from './support/markdown.ts';
import { startNginx } from './support/nginx.ts';
import { binary } from './support/packages.ts';
import { build, type RunningServer, send, startServer, startWorkersApart } from './support/server.ts';
import { freePort } from './support/services.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const PAGE = readPage('docs/deploying.md');
const MANIFEST = JSON.parse(readPage('package.json'));

/** What `npm start` runs, and in which environment. */
const [, THREADS = '', START = ''] =
  /^UV_THREADPOOL_SIZE=\$\{UV_THREADPOOL_SIZE:-(\d+)\} exec (.*)$/.exec(MANIFEST.scripts.start) ?? [];
const PROGRAM = START.split(' ');
const SERVER_ONLY = [...PROGRAM, '--server-only'];
const WORKERS = PROGRAM.map((word) => word.replace('server/main', 'workers/main'));

/** A version of three numbers, or two where that is all there is of one: nothing that moves by itself. */
const PINNED = /^[\w./-]+:\d+\.\d+(\.\d+)?(-\w+)*$/;

describe('deploy/Dockerfile', () => {
  interface Instruction {
    name: string;
    /** What follows it, on one line. */
    text: string;
    /** The name of the stage it is in, if it has one. */
    stage: string | undefined;
  }

  const instructions = readInstructions(readPage('deploy/Dockerfile'));
  const own = instructions.slice(instructions.findLastIndex(({ name }) => name === 'FROM'));
  const the = (name: string) =>
    own.filter((instruction) => instruction.name === name).map(({ text }) => text);
  const environment = Object.fromEntries(
    the('ENV').flatMap((text) => text.split(' ').map((pair) => pair.split('=') as [string, string])),
  );

  function readInstructions(text: string): Instruction[] {
    const lines = text
      .replace(/^#.*\n/gm, '')
      .replaceAll(/\\\n\s*/g, '')
      .split('\n')
      .filter(Boolean);
    let stage: string | undefined;
    return lines.map((line) => {
      const [, name = '', rest = ''] = /^([A-Z]+) (.*)$/.exec(line) ?? [];
      if (name === 'FROM') stage = /AS (\w+)$/.exec(rest)?.[1];
      return { name, text: rest, stage };
    });
  }

  /** What is copied: from where, which, and to where. */
  const copies = (of: readonly Instruction[]) =>
    of
      .filter(({ name }) => name === 'COPY')
      .map(({ text }) => {
        const [, from, paths = ''] = /^(?:--from=(\w+) )?(.*)$/.exec(text) ?? [];
        const words = paths.split(' ');
        return { from, sources: words.slice(0, -1), target: words.at(-1) ?? '' };
      });

  /** Whether .dockerignore lets a path into what the image is made of: the last line that speaks of it decides. */
  function isSent(path: string): boolean {
    const lines = readPage('.dockerignore')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    const speaks = lines.filter((line) => {
      const pattern = line.replace(/^!/, '');
      return pattern === '*' || path === pattern || path.startsWith(`${pattern}/`);
    });
    return speaks.at(-1)?.startsWith('!') ?? true;
  }

  it('is made of pinned images, the last of Node 24 and without a compiler', () => {
    const images = instructions
      .filter(({ name }) => name === 'FROM')
      .map(({ text }) => text.split(' ')[0] ?? '');
    const stages = instructions.map(({ stage }) => stage);
    for (const image of images.filter((name) => !stages.includes(name))) expect(image).toMatch(PINNED);
    expect(images.at(-1)).toMatch(/^node:24\.\d+\.\d+-\w+-slim$/);
  });

  it('copies what is there and is sent, and no folder in which secrets or data may be', () => {
    const sources = copies(instructions).flatMap(({ from, sources }) => (from ? [] : sources));
    expect(sources.length).toBeGreaterThan(5);
    expect(sources.filter((source) => !existsSync(join(ROOT, source)))).toEqual([]);
    expect(sources.filter((source) => !isSent(source))).toEqual([]);
    for (const path of ['data', 'deploy/secrets', '.git', 'node_modules', 'dist', '.env'])
      expect({ path, sent: isSent(path) }).toEqual({ path, sent: false });
  });

  it('runs what npm start runs, as somebody else than root, and looks at /readyz', () => {
    expect(the('CMD').map((text) => JSON.parse(text))).toEqual([PROGRAM]);
    expect(the('USER')).toEqual(['node']);
    expect(environment).toMatchObject({ NODE_ENV: 'production', UV_THREADPOOL_SIZE: THREADS });
    expect(the('HEALTHCHECK').join()).toContain('/readyz');
  });

  it('sets only what there is, and nothing secret', () => {
    const { NODE_ENV: _, UV_THREADPOOL_SIZE: __, ...settings } = environment;
    for (const name of Object.keys(settings))
      expect({ name, kind: SETTINGS[name as keyof typeof SETTINGS] }).toEqual({ name, kind: 'plain' });
    expect(instructions.filter(({ name }) => name === 'ARG')).toEqual([]);
  });

  it('holds the files that the program needs, with the packages of production alone', {
    timeout: 60_000,
  }, async () => {
    await build();
    const image = freshFolder();
    for (const { from, sources, target } of copies(own)) {
      for (const source of sources) {
        const path = source.replace(/^\/countersign\//, '');
        const to = join(image, target === './' ? basename(source) : target);
        mkdirSync(dirname(to), { recursive: true });
        if (from === 'dependencies') lendPackages(to);
        else cpSync(join(ROOT, path), to, { recursive: true });
      }
    }
    const port = await freePort();
    const [, ...program] = PROGRAM;
    const env = { PORT: `${port}`, COUNTERSIGN_HOST: '127.0.0.1' };
    const server = await startServer(freshFolder(), env, { root: image });
    expect(program.at(-1)).toBe('dist/server/main.js');
    for (const path of ['/console/', '/docs', '/openapi.json'])
      expect({ path, status: (await send(`${server.url}${path}`)).status }).toEqual({ path, status: 200 });
    const [, node = '', ...check] = JSON.parse(the('HEALTHCHECK').join().split('CMD ')[1] ?? '[]');
    const checked = () => spawnSync(process.execPath, [node, ...check], { env: { PORT: `${port}` } }).status;
    expect(checked()).toBe(0);
    const command = [join(image, 'server/bin/countersign.js'), '--version'];
    expect(spawnSync(process.execPath, command, { encoding: 'utf8' }).stdout.trim()).toBe(MANIFEST.version);
    await server.stop();
    expect(checked()).toBe(1);
  });

  /** What `npm ci --omit=dev` installs, lent from what is installed here. */
  function lendPackages(folder: string) {
    const { packages } = JSON.parse(readPage('package-lock.json'));
    const names = Object.keys(packages).filter(
      (path) => /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) && !packages[path].dev && !packages[path].link,
    );
    for (const path of names.filter((name) => existsSync(join(ROOT, name)))) {
      const to = join(folder, path.replace('node_modules/', ''));
      mkdirSync(dirname(to), { recursive: true });
      symlinkSync(join(ROOT, path), to);
    }
  }
});

interface Service {
  image: string;
  command?: string[];
  environment?: Record<string, string>;
  secrets?: string[];
  ports?: string[];
  networks: string[] | Record<string, { ipv4_address: string }>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: object;
  read_only?: boolean;
  cap_drop?: string[];
}

describe('deploy/compose.yaml', () => {
  const compose = parse(readPage('deploy/compose.yaml'), { merge: true }) as {
    services: Record<string, Service>;
    secrets: Record<string, { file: string }>;
  };
  const services = Object.entries(compose.services);
  const ours = services.filter(([, { image }]) => image.startsWith('countersign:'));
  const [secrets = ''] = blocksOf(sectionOf(PAGE, 'Containers'), 'sh');

  /** The files that the commands of the page make, in a folder of their own. */
  function makeSecrets(): string {
    const folder = freshFolder();
    mkdirSync(join(folder, 'deploy'));
    execFileSync('sh', ['-e', '-c', secrets], { cwd: folder });
    return join(folder, 'deploy');
  }

  /** The environment of a service of ours, as on a machine where nothing else is set. */
  const environmentOf = ({ environment = {} }: Service, secretsIn: string) =>
    Object.fromEntries(
      Object.entries(environment).map(([name, value]) => [
        name,
        value.replace(/^\$\{\w+:-(.*)\}$/, '$1').replace('/run/secrets/', `${secretsIn}/secrets/`),
      ]),
    );

  it('runs two servers and workers of the version that this is, by the commands of npm', () => {
    expect(ours.map(([name, { image, command }]) => ({ name, image, command }))).toEqual([
      { name: 'server-1', image: `countersign:${MANIFEST.version}`, command: SERVER_ONLY },
      { name: 'server-2', image: `countersign:${MANIFEST.version}`, command: SERVER_ONLY },
      { name: 'workers', image: `countersign:${MANIFEST.version}`, command: WORKERS },
    ]);
    expect(SERVER_ONLY.join(' ')).toBe(MANIFEST.scripts['start:server'].split(' exec ')[1]);
    expect(WORKERS.join(' ')).toBe(MANIFEST.scripts['start:workers'].split(' exec ')[1]);
  });

  it.each(ours)('gives %s settings that it takes, with the secrets that the page makes', (_, service) => {
    const folder = makeSecrets();
    const env = environmentOf(service, folder);
    expect(Object.keys(env).filter((name) => !Object.hasOwn(SETTINGS, name))).toEqual([]);
    const config = loadConfig({ ...env, COUNTERSIGN_HOST: '0.0.0.0' });
    expect(config.databaseLocation).toMatch(
      /^postgres:\/\/countersign:[0-9a-f]{64}@postgres:5432\/countersign$/,
    );
    expect(config.redis).toMatchObject({
      url: expect.stringMatching(/^redis:\/\/:[0-9a-f]{64}@redis:6379$/),
    });
    expect(config.masterKey).toHaveLength(32);
    // Once the public URL is https, nothing is waived any more.
    const inPublic = { ...env, COUNTERSIGN_HOST: '0.0.0.0', COUNTERSIGN_ALLOW_INSECURE_HTTP: 'false' };
    expect(() => loadConfig({ ...inPublic })).toThrow('COUNTERSIGN_PUBLIC_URL');
    expect(loadConfig({ ...inPublic, COUNTERSIGN_PUBLIC_URL: 'https://auth.example.com' }).port).toBe(4400);
  });

  it('keeps secrets in files that the page makes, and in nothing else', () => {
    const folder = makeSecrets();
    const names = Object.keys(compose.secrets).sort();
    expect(readdirSync(join(folder, 'secrets')).sort()).toEqual(names);
    expect(names.map((name) => compose.secrets[name]?.file)).toEqual(
      names.map((name) => `./secrets/${name}`),
    );
    expect(new Set(services.flatMap(([, { secrets: used = [] }]) => used))).toEqual(new Set(names));
    for (const [, { environment = {} }] of services)
      for (const [name, value] of Object.entries(environment))
        if (/PASSWORD|KEY|URL_FILE/.test(name)) expect(value).toMatch(/^\/run\/secrets\//);
    const read = (name: string) => readFileSync(join(folder, 'secrets', name), 'utf8').trim();
    expect(read('database-url')).toContain(`:${read('postgres-password')}@`);
    expect(read('redis-url')).toContain(`:${read('redis-conf').replace('requirepass ', '')}@`);
  });

  it('pins every image, looks after every service, and waits for what each needs', () => {
    for (const [name, { image, healthcheck, depends_on = {} }] of services) {
      expect(image).toMatch(PINNED);
      // The servers' own is in their image.
      expect({ name, looksAfter: healthcheck !== undefined || name.startsWith('server-') }).toEqual({
        name,
        looksAfter: true,
      });
      for (const needed of Object.keys(depends_on)) expect(Object.keys(compose.services)).toContain(needed);
      for (const { condition } of Object.values(depends_on)) expect(condition).toBe('service_healthy');
    }
    const build = { context: '..', dockerfile: 'deploy/Dockerfile' };
    for (const [, service] of ours)
      expect(service).toMatchObject({ build, read_only: true, cap_drop: ['ALL'] });
  });

  it('has a Redis that throws nothing away and keeps what it has', () => {
    const command = compose.services['redis']?.command?.join(' ');
    expect(command).toContain('--maxmemory-policy noeviction');
    expect(command).toContain('--appendonly yes');
  });

  it('lets in nobody from elsewhere, and has the servers believe the proxy alone', () => {
    const published = services.flatMap(([name, { ports = [] }]) => ports.map((port) => [name, port]));
    expect(published).toEqual([['proxy', '127.0.0.1:4400:8080']]);
    const networks = compose.services['proxy']?.networks as Record<string, { ipv4_address: string }>;
    for (const [, { environment = {} }] of ours)
      expect(environment['COUNTERSIGN_TRUSTED_PROXIES']).toBe(`${networks['outside']?.ipv4_address}/32`);
  });
});

describe('deploy/nginx.conf', () => {
  const config = readPage('deploy/nginx.conf');
  const { path: nginx, missing: noNginx } = inject('nginx');
  const [postgres, redis] = [inject('postgres'), inject('redis')];
  const missing = [nginx ? '' : noNginx, postgres.missing, redis.missing].filter(Boolean).join(', ');

  /** nginx as it is deployed, in front of servers that are here. */
  async function inFrontOf(servers: readonly RunningServer[]): Promise<string> {
    const port = await freePort();
    const here = servers.reduce(
      (text, { url }, i) => text.replace(`server-${i + 1}:4400`, new URL(url).host),
      config.replace('listen 8080', `listen 127.0.0.1:${port}`),
    );
    await startNginx(here, port);
    return `http://127.0.0.1:${port}`;
  }

  it('names the servers that deploy/compose.yaml runs, and its port', () => {
    expect([...config.matchAll(/server (server-\d):4400/g)].map(([, name]) => name)).toEqual([
      'server-1',
      'server-2',
    ]);
    expect(config).toContain('listen 8080;');
  });

  const name = 'servers and workers apart, on PostgreSQL and Redis, answer as one';
  const run = missing === '' ? it : it.skip;
  run(missing === '' ? name : `${name} [skipped: ${missing}]`, { timeout: 120_000 }, async () => {
    const env = {
      DATABASE_URL: await emptyDatabase('postgres'),
      REDIS_URL: redis.url ?? '',
      COUNTERSIGN_MASTER_KEY: 'a'.repeat(64),
      COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'0'.repeat(64)}`,
      COUNTERSIGN_TRUSTED_PROXIES: '127.0.0.1/32',
    };
    const start = async () =>
      startServer(freshFolder(), { ...env, PORT: `${await freePort()}` }, { args: ['--server-only'] });
    const [first, second] = [await start(), await start()];
    await startWorkersApart({ ...env, COUNTERSIGN_DATA_DIR: freshFolder() });
    const url = await inFrontOf([first, second]);
    const post = (path: string, body: object, credential = first.adminKey, headers = {}) =>
      send(`${url}${path}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${credential}`, 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      });

    const { body: key } = await post('/v1/api_keys', { name: 'ci', subject: 'user_1' });
    for (let i = 0; i < 4; i++)
      expect((await post('/v1/verify', { credential: key.secret })).body.valid).toBe(true);

    // What a caller says of its own address, nobody believes.
    const { body: bound } = await post('/v1/secret_keys', {
      name: 'bound',
      role: 'verify',
      allowed_cidrs: ['10.9.9.9/32'],
    });
    const forged = { 'x-forwarded-for': '10.9.9.9' };
    expect((await post('/v1/verify', { credential: key.secret }, bound.secret, forged)).status).toBe(401);

    // The feed comes through as it is written.
    const controller = new AbortController();
    const feed = await fetch(`${url}/v1/feed`, {
      headers: { authorization: `Bearer ${first.adminKey}` },
      signal: controller.signal,
    });
    const told = readUntil(feed, /event: invalidate[\s\S]*"kind":"api_key/);
    await post(`/v1/api_keys/${key.id}/revoke`, {});
    await told;
    controller.abort();

    await first.stop('SIGKILL');
    for (let i = 0; i < 4; i++)
      expect((await post('/v1/verify', { credential: key.secret })).body).toMatchObject({
        reason: 'revoked',
      });
  });

  async function readUntil(response: Response, pattern: RegExp): Promise<void> {
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      if (pattern.test(text)) return;
    }
    throw new Error(`The feed ended without ${pattern}: ${text}`);
  }
});

describe('deploy/*.service', () => {
  const units = ['countersign.service', 'countersign-workers.service'];
  const analyze = binary('systemd-analyze');

  const settingsOf = (unit: string) =>
    [...readPage(`deploy/${unit}`).matchAll(/^(\w+)=(.*)$/gm)].map(([, name = '', value = '']) => [
      name,
      value,
    ]);

  it.each(units)('%s runs what npm does, with settings that there are', (unit) => {
    const settings = settingsOf(unit);
    const one = (name: string) => settings.filter(([of]) => of === name).map(([, value]) => value);
    const isServer = unit === 'countersign.service';
    const program = isServer ? [...PROGRAM, '$SERVER_ARGUMENTS'] : WORKERS;
    expect(one('ExecStart')).toEqual([`/usr/bin/${program.join(' ')}`]);
    const env = Object.fromEntries(
      one('Environment').flatMap((line = '') =>
        line.split(' ').map((pair) => pair.split('=') as [string, string]),
      ),
    );
    expect(env).toMatchObject({ UV_THREADPOOL_SIZE: THREADS, COUNTERSIGN_MASTER_KEY_FILE: '%d/master-key' });
    for (const name of Object.keys(env).filter((each) => each.startsWith('COUNTERSIGN_')))
      expect(Object.keys(SETTINGS)).toContain(name);
  });

  it('are alike but for what they run', () => {
    const [server = [], workers = []] = units.map((unit) =>
      settingsOf(unit).filter(([name]) => !['Description', 'After', 'ExecStart'].includes(name ?? '')),
    );
    expect(workers).toEqual(server);
  });

  const isLinux = process.platform === 'linux';
  const reason = analyze && isLinux ? null : 'there is no systemd-analyze';
  const verify = reason ? it.skip : it;
  verify.each(units)(`%s is what systemd takes${reason ? ` [skipped: ${reason}]` : ''}`, (unit) => {
    // Node is not at the same place everywhere, and systemd looks.
    const text = readPage(`deploy/${unit}`).replace('/usr/bin/node', process.execPath);
    const path = join(freshFolder(), unit);
    writeFileSync(path, text);
    const { status, stderr } = spawnSync(analyze ?? '', ['verify', '--man=no', path], { encoding: 'utf8' });
    expect(stderr.split('\n').filter((line) => line.includes(unit))).toEqual([]);
    expect(status).toBe(0);
  });
});

describe('what is watched', () => {
  const metricsIn = (query: string) =>
    [...query.matchAll(/\b(?:countersign|process|nodejs)_\w+/g)].map(([name]) => name);
  /** Those that it selects by, and those that it groups by. */
  const labelsIn = (query: string) => [
    ...[...query.matchAll(/[{,](\w+)[=!]/g)].map(([, label = '']) => label),
    ...[...query.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(', ')),
  ];

  it('the dashboard and the alerts ask for metrics that a server has, by labels that they have', async () => {
    const { url, adminKey, call } = await startServer(freshFolder());
    await call('credentials.verify', { credential: 'ak_none' });
    // Jobs have rows once their schedule has looked.
    const body = await vi.waitFor(async () => {
      const answer = await send(`${url}/metrics`, { headers: { authorization: `Bearer ${adminKey}` } });
      expect(answer.body).toContain('countersign_job_overdue_seconds{');
      return answer.body;
    }, 10_000);
    const types = [...String(body).matchAll(/^# TYPE (\w+) (\w+)$/gm)];
    const names = types.flatMap(([, name = '', type]) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    );
    const labels = [...String(body).matchAll(/[{,](\w+)="/g)].map(([, label]) => label);
    const { panels } = JSON.parse(readPage('deploy/grafana/countersign.json'));
    const queries: string[] = panels.flatMap(({ targets = [] }) =>
      targets.map(({ expr }: { expr: string }) => expr),
    );
    const [alerts = ''] = blocksOf(readPage('docs/alerts.md'), 'yaml');
    const rules: { expr: string }[] = parse(alerts).groups[0].rules;
    expect(queries.length).toBeGreaterThan(20);
    for (const query of [...queries, ...rules.map(({ expr }) => expr)]) {
      const asked = metricsIn(query);
      expect(asked.length).toBeGreaterThan(0);
      const unknown = [
        ...asked.filter((name) => !names.includes(name)),
        ...labelsIn(query).filter((label) => label !== 'instance' && !labels.includes(label)),
      ];
      expect({ query, unknown }).toEqual({ query, unknown: [] });
    }
  });
});
