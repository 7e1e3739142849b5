import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  ConfigError,
  isLoopback,
  listeningOn,
  loadConfig,
  parseMasterKey,
  parseRedisUrl,
} from '../../server/config.ts';
import { freshFolder } from '../support/deps.ts';

const KEY = Buffer.alloc(32, 9);
const NEW_KEY = Buffer.alloc(32, 10);

/** The problems with an environment, by name. */
function problemsOf(env: NodeJS.ProcessEnv): Record<string, string> {
  try {
    loadConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return Object.fromEntries(
      error.problems.map(({ name, wanted, found }) => [name, `${wanted}; found ${found}`]),
    );
  }
  return {};
}

describe('loadConfig()', () => {
  it('needs nothing to be set', () => {
    expect(loadConfig({})).toEqual({
      host: '127.0.0.1',
      port: 4400,
      metricsPort: undefined,
      publicUrl: 'http://127.0.0.1:4400',
      dataDir: resolve('data'),
      sqliteFile: resolve('data/countersign.db'),
      databaseLocation: resolve('data/countersign.db'),
      hostId: expect.stringMatching(/./),
      redis: undefined,
      masterKey: undefined,
      bootstrapKey: undefined,
      signingAlg: 'RS256',
      keyRotationDays: 30,
      trustedProxies: [],
      corsOrigins: [],
      webhookAllowSubnets: [],
      console: true,
      oauthClients: 'preregistered',
      oauthTokensPerMinute: 6_000,
      signIn: { kind: 'local' },
      logLevel: 'info',
    });
  });

  it('asks for what a way of signing in needs, and for https where it is not on this host', () => {
    expect(problemsOf({ COUNTERSIGN_SIGN_IN: 'handoff' })).toHaveProperty('COUNTERSIGN_HANDOFF_URL');
    expect(problemsOf({ COUNTERSIGN_SIGN_IN: 'oidc' })).toHaveProperty('COUNTERSIGN_OIDC_ISSUER');
    const issuer = { COUNTERSIGN_SIGN_IN: 'oidc', COUNTERSIGN_OIDC_ISSUER: 'https://login.example.com' };
    expect(problemsOf(issuer)).toHaveProperty('COUNTERSIGN_OIDC_CLIENT_ID');
    const handoff = (url: string) => ({ COUNTERSIGN_SIGN_IN: 'handoff', COUNTERSIGN_HANDOFF_URL: url });
    expect(problemsOf(handoff('http://app.example.com/consent'))).toHaveProperty('COUNTERSIGN_HANDOFF_URL');
    expect(loadConfig(handoff('http://localhost:3000/consent')).signIn).toEqual({
      kind: 'handoff',
      url: 'http://localhost:3000/consent',
    });
  });

  it('reads every setting, and counts an empty one as not set', () => {
    const config = loadConfig({
      PORT: '8080',
      DATABASE_URL: 'postgres://app:hunter2@db/countersign',
      REDIS_URL: 'redis://cache:6379',
      COUNTERSIGN_HOST: '0.0.0.0',
      COUNTERSIGN_HOST_ID: 'host-1',
      COUNTERSIGN_METRICS_PORT: '9090',
      COUNTERSIGN_KEY_ROTATION_DAYS: '7',
      COUNTERSIGN_PUBLIC_URL: 'https://Auth.Example.com/',
      COUNTERSIGN_DATA_DIR: '/var/lib/countersign',
      COUNTERSIGN_MASTER_KEY: KEY.toString('base64url'),
      COUNTERSIGN_NEW_MASTER_KEY: NEW_KEY.toString('hex'),
      COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'a'.repeat(40)}`,
      COUNTERSIGN_SIGNING_ALG: 'EdDSA',
      COUNTERSIGN_TRUSTED_PROXIES: '10.0.0.0/8, ::1',
      COUNTERSIGN_CORS_ORIGINS: 'https://app.example.com,http://localhost:3000',
      COUNTERSIGN_WEBHOOK_ALLOW_SUBNETS: '192.168.0.0/16',
      COUNTERSIGN_CONSOLE: 'off',
      COUNTERSIGN_OAUTH_CLIENTS: 'mcp',
      COUNTERSIGN_OAUTH_TOKENS_PER_MINUTE: '1',
      COUNTERSIGN_SIGN_IN: 'oidc',
      COUNTERSIGN_OIDC_ISSUER: 'https://login.example.com',
      COUNTERSIGN_OIDC_CLIENT_ID: 'countersign',
      COUNTERSIGN_OIDC_CLIENT_SECRET: 'hunter2',
      COUNTERSIGN_LOG_LEVEL: '',
    });
    expect(config).toEqual({
      host: '0.0.0.0',
      port: 8080,
      metricsPort: 9090,
      publicUrl: 'https://auth.example.com',
      dataDir: '/var/lib/countersign',
      sqliteFile: '/var/lib/countersign/countersign.db',
      databaseLocation: 'postgres://app:hunter2@db/countersign',
      hostId: 'host-1',
      redis: { kind: 'single', url: 'redis://cache:6379' },
      masterKey: KEY,
      newMasterKey: NEW_KEY,
      bootstrapKey: `sk_${'a'.repeat(40)}`,
      signingAlg: 'EdDSA',
      keyRotationDays: 7,
      trustedProxies: ['10.0.0.0/8', '::1'],
      corsOrigins: ['https://app.example.com', 'http://localhost:3000'],
      webhookAllowSubnets: ['192.168.0.0/16'],
      console: false,
      oauthClients: 'mcp',
      oauthTokensPerMinute: 1,
      signIn: {
        kind: 'oidc',
        issuer: 'https://login.example.com',
        clientId: 'countersign',
        clientSecret: 'hunter2',
      },
      logLevel: 'info',
    });
  });

  it('takes secrets out of the environment, also when it refuses it', () => {
    const secrets = {
      DATABASE_URL: 'postgres://app:hunter2@db/countersign',
      REDIS_URL: 'redis://:hunter2@cache',
      COUNTERSIGN_MASTER_KEY: KEY.toString('hex'),
      COUNTERSIGN_NEW_MASTER_KEY: NEW_KEY.toString('hex'),
      COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'a'.repeat(40)}`,
    };
    const good: NodeJS.ProcessEnv = { ...secrets };
    loadConfig(good);
    expect(good).toEqual({});
    const bad: NodeJS.ProcessEnv = { ...secrets, PORT: 'x' };
    expect(() => loadConfig(bad)).toThrow(ConfigError);
    expect(bad).toEqual({ PORT: 'x' });
  });

  it('names every bad setting at once, with what was wanted and found', () => {
    const env = {
      PORT: '65536',
      DATABASE_URL: 'mysql://db',
      REDIS_URL: 'cache:6379',
      COUNTERSIGN_HOST: 'a b',
      COUNTERSIGN_HOST_ID: 'a b',
      COUNTERSIGN_METRICS_PORT: '0',
      COUNTERSIGN_KEY_ROTATION_DAYS: '1',
      COUNTERSIGN_PUBLIC_URL: 'https://auth.example.com/path',
      COUNTERSIGN_SIGNING_ALG: 'HS256',
      COUNTERSIGN_TRUSTED_PROXIES: '10.0.0.0/33',
      COUNTERSIGN_CORS_ORIGINS: '*',
      COUNTERSIGN_ALLOW_INSECURE_HTTP: 'maybe',
      COUNTERSIGN_WEBHOOK_ALLOW_SUBNETS: 'lan',
      COUNTERSIGN_CONSOLE: 'yes',
      COUNTERSIGN_LOG_LEVEL: 'loud',
    };
    expect(Object.keys(problemsOf({ ...env })).sort()).toEqual(Object.keys(env).sort());
    expect(() => loadConfig({ PORT: '65536', COUNTERSIGN_CONSOLE: 'yes' })).toThrow(
      "Cannot start: 2 of the settings are not as wanted\n  PORT: wanted a whole number from 0 to 65535, found '65536'\n  COUNTERSIGN_CONSOLE: wanted one of on, off, found 'yes'",
    );
  });

  it('says of a secret only how long it is', () => {
    const problems = problemsOf({
      DATABASE_URL: 'mysql://app:hunter2@db',
      REDIS_URL: 'redis+sentinel://:hunter2@cache',
      COUNTERSIGN_PUBLIC_URL: 'https://me:hunter2@auth.example.com',
      COUNTERSIGN_MASTER_KEY: 'hunter2hunter2',
      COUNTERSIGN_NEW_MASTER_KEY: 'hunter2hunter2',
      COUNTERSIGN_BOOTSTRAP_KEY: 'sk_hunter2',
    });
    expect(Object.keys(problems)).toHaveLength(6);
    expect(JSON.stringify(problems)).not.toContain('hunter2');
    expect(problems['COUNTERSIGN_MASTER_KEY']).toBe(
      '32 bytes as base64, base64url or 64 hex digits; found text of 14 characters',
    );
  });

  it.each([
    ['COUNTERSIGN_MASTERKEY', 'COUNTERSIGN_MASTER_KEY'],
    ['COUNTERSIGN_DATA_DIRECTORY', 'COUNTERSIGN_DATA_DIR'],
    ['COUNTERSIGN_PORT', 'PORT'],
    ['COUNTERSIGN_DATABASE_URL', 'DATABASE_URL'],
  ])('refuses the unknown setting %s and names the nearest, %s', (unknown, nearest) => {
    expect(problemsOf({ [unknown]: 'hunter2' })).toEqual({
      [unknown]: `a known setting, such as ${nearest}; found one that is not`,
    });
  });

  it('lets be what clients, the test suite and Kubernetes put there', () => {
    const env = {
      COUNTERSIGN_URL: 'http://127.0.0.1:4400',
      COUNTERSIGN_SECRET_KEY: 'sk_x',
      COUNTERSIGN_MACHINE_SECRET_KEY: 'msk_x',
      COUNTERSIGN_TEST_INSTALL: '0',
      COUNTERSIGN_SERVICE_HOST: '10.0.0.1',
      COUNTERSIGN_SERVICE_PORT_HTTP: '4400',
      COUNTERSIGN_PORT: 'tcp://10.0.0.1:4400',
      COUNTERSIGN_PORT_4400_TCP_ADDR: '10.0.0.1',
    };
    expect(problemsOf(env)).toEqual({});
  });

  it('refuses to be reachable from elsewhere without https, unless that is waived', () => {
    expect(problemsOf({ COUNTERSIGN_HOST: '0.0.0.0' })).toHaveProperty('COUNTERSIGN_PUBLIC_URL');
    const plain = { COUNTERSIGN_HOST: '::', COUNTERSIGN_PUBLIC_URL: 'http://auth.internal' };
    expect(problemsOf({ ...plain })).toHaveProperty('COUNTERSIGN_PUBLIC_URL');
    expect(problemsOf({ ...plain, COUNTERSIGN_ALLOW_INSECURE_HTTP: 'false' })).not.toEqual({});
    expect(problemsOf({ ...plain, COUNTERSIGN_ALLOW_INSECURE_HTTP: 'true' })).toEqual({});
    expect(problemsOf({ ...plain, COUNTERSIGN_PUBLIC_URL: 'https://auth.internal' })).toEqual({});
    expect(problemsOf({ COUNTERSIGN_HOST: '::1' })).toEqual({});
  });

  it('wants the master key given on PostgreSQL', () => {
    const problems = problemsOf({ DATABASE_URL: 'postgres://db/countersign' });
    expect(problems['COUNTERSIGN_MASTER_KEY']).toMatch(/PostgreSQL database; found nothing$/);
  });

  it('reads a secret from a file, and refuses both at once, a file that is not there and a bad one', () => {
    const folder = freshFolder();
    const path = join(folder, 'key');
    writeFileSync(path, `${KEY.toString('base64')}\n`);
    expect(loadConfig({ COUNTERSIGN_MASTER_KEY_FILE: path }).masterKey).toEqual(KEY);
    const name = 'COUNTERSIGN_MASTER_KEY_FILE';
    const both = { COUNTERSIGN_MASTER_KEY: KEY.toString('hex'), [name]: path };
    expect(problemsOf(both)[name]).toMatch(/only one of/);
    expect(problemsOf({ [name]: join(folder, 'none') })[name]).toMatch(/ENOENT/);
    writeFileSync(path, 'hunter2');
    expect(problemsOf({ [name]: path })[name]).toMatch(/a file that holds 32 bytes .*; found text of 7/);
  });

  it('reads where the database and Redis are from files, for their URLs hold passwords', () => {
    const folder = freshFolder();
    const [database, redis] = [join(folder, 'database'), join(folder, 'redis')];
    writeFileSync(database, 'postgres://app:hunter2@db/countersign\n');
    writeFileSync(redis, 'redis://:hunter2@cache:6379\n');
    const files = { DATABASE_URL_FILE: database, REDIS_URL_FILE: redis };
    expect(loadConfig({ ...files, COUNTERSIGN_MASTER_KEY: KEY.toString('hex') })).toMatchObject({
      databaseLocation: 'postgres://app:hunter2@db/countersign',
      redis: { kind: 'single', url: 'redis://:hunter2@cache:6379' },
    });
    expect(problemsOf({ ...files, REDIS_URL: 'redis://cache' })).toHaveProperty('REDIS_URL_FILE');
    writeFileSync(database, 'mysql://app:hunter2@db');
    expect(problemsOf({ DATABASE_URL_FILE: database })['DATABASE_URL_FILE']).toMatch(/; found text of 22/);
  });
});

describe('parseRedisUrl()', () => {
  it('reads one server, Sentinels and a Cluster, with what the URL hides of a password', () => {
    expect(parseRedisUrl('rediss://app:hunter2@cache/1')).toEqual({
      kind: 'single',
      url: 'rediss://app:hunter2@cache/1',
    });
    const login = { username: 'app', password: 'p:@1' };
    expect(parseRedisUrl('redis+sentinel://app:p:%401@one,[::1]:7000/main?db=2&sentinel_password=s')).toEqual(
      {
        kind: 'sentinel',
        nodes: [
          { host: 'one', port: 26_379 },
          { host: '::1', port: 7000 },
        ],
        login,
        tls: false,
        master: 'main',
        db: 2,
        sentinelLogin: { password: 's' },
      },
    );
    expect(parseRedisUrl('rediss+cluster://:hunter2@one:7000,two')).toEqual({
      kind: 'cluster',
      nodes: [
        { host: 'one', port: 7000 },
        { host: 'two', port: 6379 },
      ],
      login: { password: 'hunter2' },
      tls: true,
    });
  });

  it.each([
    'redis+sentinel://one:26379',
    'redis+sentinel://one/main?db=x',
    'redis+sentinel://one/main?database=1',
    'redis+sentinel://one/%zz',
    'redis+cluster://one/main',
    'redis+cluster://one?db=1',
    'redis+cluster://one,,two',
    'redis+cluster://one:0',
    'redis+cluster://one:65536',
    'redis+cluster://[1::x]:7000',
    'redis+cluster://',
    'redis+ring://one',
  ])('does not guess what %s means', (text) => {
    expect(parseRedisUrl(text)).toBeUndefined();
  });
});

describe('parseMasterKey()', () => {
  it('takes 32 bytes in each of its spellings, and nothing shorter or longer', () => {
    const key = Buffer.alloc(32, 0xfb);
    for (const encoding of ['base64', 'base64url', 'hex'] as const)
      expect(parseMasterKey(key.toString(encoding))).toEqual(key);
    for (const length of [31, 33])
      for (const encoding of ['base64', 'base64url', 'hex'] as const)
        expect(parseMasterKey(Buffer.alloc(length, 0xfb).toString(encoding))).toBeUndefined();
  });
});

describe('listeningOn()', () => {
  it('puts the port that was taken into the default URL, and into no other', () => {
    expect(listeningOn(loadConfig({ PORT: '0', COUNTERSIGN_HOST: '::1' }), 5000)).toMatchObject({
      port: 5000,
      publicUrl: 'http://[::1]:5000',
    });
    const given = loadConfig({ PORT: '0', COUNTERSIGN_PUBLIC_URL: 'https://auth.example.com' });
    expect(listeningOn(given, 5000).publicUrl).toBe('https://auth.example.com');
  });
});

describe('isLoopback()', () => {
  it('is true of what can only be this machine', () => {
    for (const host of ['localhost', '127.0.0.1', '127.8.8.8', '::1', '[::1]'])
      expect(isLoopback(host)).toBe(true);
    for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.example.com', 'localhost.example.com'])
      expect(isLoopback(host)).toBe(false);
  });
});
