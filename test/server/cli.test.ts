import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { runCommand } from '../../server/cli.ts';
import { CREDENTIAL_FIELDS } from '../../server/commands.ts';
import { listEvents } from '../../server/domain/events.ts';
import { createMachine, createMachineInput, MACHINE_SCOPES_MAX } from '../../server/domain/machines.ts';
import { appRouter } from '../../server/trpc/router.ts';
import { callerWith, freshFolder, openTestDeps, type TestDeps } from '../support/deps.ts';
import { allow } from '../support/machines.ts';
import { listen, serveProcedures } from '../support/procedures.ts';
import { startServer } from '../support/server.ts';

interface Ran {
  code: number;
  out: string;
  err: string;
}

interface Situation {
  stdin?: string;
  env?: Record<string, string>;
  isTTY?: boolean;
}

async function run(argv: string[], { stdin = '', env = {}, isTTY = false }: Situation = {}): Promise<Ran> {
  const ran = { out: '', err: '' };
  const append = (stream: 'out' | 'err', text: string) => {
    ran[stream] += text;
  };
  const code = await runCommand(argv, {
    env,
    stdin: Readable.from([stdin]),
    stdout: { isTTY, write: (text) => append('out', text) },
    stderr: { write: (text) => append('err', text) },
    version: '1.2.3',
  });
  return { code, ...ran };
}

/** A server, and commands run by its administrator. */
async function administered() {
  const deps = await openTestDeps('sqlite');
  const { url } = await serveProcedures(deps);
  const env = { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: deps.adminKey };
  return {
    deps,
    url,
    command: (argv: string[], situation: Situation = {}) => run(argv, { env, ...situation }),
    json: async (...argv: string[]) => {
      const ran = await run(argv, { env });
      expect(ran).toMatchObject({ code: 0, err: '' });
      return JSON.parse(ran.out);
    },
  };
}

const eventTypes = async (deps: TestDeps) =>
  (await listEvents(deps, { after: 0, limit: 500 })).data.map(({ type }) => type);

describe('countersign', () => {
  it('makes a command of every procedure, arguments of its obvious fields and options of the others', async () => {
    const { json } = await administered();
    const billing = await json('machines', 'create', 'billing', '--description', 'sends invoices');
    expect(billing).toMatchObject({ name: 'billing', description: 'sends invoices' });
    const ledger = await json('machines', 'create', 'ledger', '--may-verify');
    expect(ledger).toMatchObject({ mayVerify: true });
    await json(
      'machine-scopes',
      'create',
      billing.id,
      ledger.id,
      '--scopes',
      'entries:write',
      'entries:read',
    );
    expect((await json('machine-scopes', 'list')).data).toMatchObject([
      { toMachineId: ledger.id, scopes: ['entries:write', 'entries:read'] },
    ]);
    expect((await json('machines', 'list', '--limit', '1', '--order-by', 'name')).data).toHaveLength(1);
    expect(
      await json('machines', 'update', '--json', `{"id":"${ledger.id}","description":null}`),
    ).toMatchObject({
      mayVerify: true,
    });
  });

  it('takes of a list what is given, and nothing of its default beside that', async () => {
    const { json } = await administered();
    const redirect = ['--redirect-uris', 'https://notes.example.com/callback'];
    const narrow = ['--scopes', 'openid', '--grant-types', 'authorization_code', 'client_credentials'];
    expect(await json('oauth-applications', 'create', 'notes', ...redirect, ...narrow)).toMatchObject({
      scopes: ['openid'],
      grantTypes: ['authorization_code', 'client_credentials'],
      redirectUris: ['https://notes.example.com/callback'],
    });
    expect(await json('oauth-applications', 'create', 'more', ...redirect)).toMatchObject({
      scopes: ['openid', 'profile', 'email', 'offline_access'],
      grantTypes: ['authorization_code', 'refresh_token'],
    });
  });

  it('shows a table on a terminal and where it is asked for, JSON elsewhere', async () => {
    const { command } = await administered();
    const { out: made } = await command(['machines', 'create', 'billing']);
    const { id } = JSON.parse(made);
    const onTerminal = await command(['machines', 'list'], { isTTY: true });
    expect(onTerminal.out).toMatch(/^id +name +description/);
    expect(onTerminal.out).toMatch(new RegExp(`^${id}  billing  - .*  2026-01-06T12:00:00.000Z`, 'm'));
    expect((await command(['machines', 'list', '--output', 'table'])).out).toBe(onTerminal.out);
    expect(
      JSON.parse((await command(['machines', 'list', '--output', 'json'], { isTTY: true })).out).data,
    ).toHaveLength(1);
    expect((await command(['machines', 'list', '--output', 'yaml'])).code).toBe(2);
  });

  it('writes nothing to a terminal that could steer it', async () => {
    const { command, deps } = await administered();
    const { url } = await listen((_, response) => {
      response
        .writeHead(200)
        .end('[{"result":{"data":{"data":[{"name":"\\u001b[2Jgone\\u009b"}],"nextCursor":null}}}]');
    });
    const env = { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: deps.adminKey };
    const { out } = await command(['machines', 'list'], { env, isTTY: true });
    expect(out).toContain('gone');
    expect(out).not.toMatch(/[^\P{Cc}\n]/u);
  });

  it('verifies what stands on standard input: 0 for valid, 1 and the reason for not', async () => {
    const { command, json } = await administered();
    const { id, secret } = await json('api-keys', 'create', 'export', 'user_1', '--scopes', 'invoices:read');
    const valid = await command(['verify', '--scopes', 'invoices:read'], { stdin: `${secret}\n` });
    expect(valid.code).toBe(0);
    expect(JSON.parse(valid.out)).toMatchObject({ valid: true, kind: 'api_key', id });
    expect(await command(['api-keys', 'revoke-by-value'], { stdin: secret })).toMatchObject({ code: 0 });
    const refused = await command(['verify'], { stdin: secret });
    expect(refused.code).toBe(1);
    expect(JSON.parse(refused.out)).toMatchObject({ valid: false, reason: 'revoked' });
    expect(await command(['verify'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('standard input'),
    });
  });

  it('takes the key from the first line of standard input, of either kind, before the credential', async () => {
    const { deps, url, json } = await administered();
    const { secret: machineSecretKey } = await json('machines', 'create', 'billing');
    const env = { COUNTERSIGN_URL: url };
    const minted = await run(['m2m-tokens', 'create', '--secret-key-stdin'], {
      env,
      stdin: machineSecretKey,
    });
    expect(minted.code).toBe(0);
    const { token } = JSON.parse(minted.out);
    const refused = await run(['verify', '--secret-key-stdin'], {
      env,
      stdin: `${deps.adminKey}\r\n${token}\r\n`,
    });
    expect(JSON.parse(refused.out)).toMatchObject({ valid: false, reason: 'audience_required' });
    expect(await run(['machines', 'list'], { env })).toMatchObject({
      code: 2,
      err: expect.stringContaining('COUNTERSIGN_SECRET_KEY'),
    });
  });

  it('refuses credentials as arguments, wherever they stand, and repeats none', async () => {
    const { command, json, deps } = await administered();
    const { secret } = await json('machines', 'create', 'billing');
    const own = `sk_${'x'.repeat(41)}`;
    const attempts = [
      ['verify', secret],
      ['verify', `--credential=${deps.adminKey}`],
      ['machines', 'create', own],
      ['api-keys', 'revoke-by-value', '--json', JSON.stringify({ value: secret })],
    ];
    for (const argv of attempts) {
      const { code, out, err } = await command(argv);
      expect(code).toBe(2);
      expect(err).toContain('Cannot take a credential as an argument');
      expect(out + err).not.toMatch(/[A-Za-z0-9_]{40}/);
    }
  });

  it('offers no option for an input that is a credential', () => {
    const procedures = appRouter._def.procedures as unknown as Record<
      string,
      { _def: { inputs: { shape?: Record<string, unknown> }[] } }
    >;
    const taking = Object.entries(procedures)
      .filter(([, { _def }]) => ['credential', 'value'].some((field) => _def.inputs[0]?.shape?.[field]))
      .map(([path]) => path);
    expect(Object.keys(CREDENTIAL_FIELDS).sort()).toEqual(taking.sort());
  });

  it('answers 1 with code, message and request id for what the server refuses', async () => {
    const { command } = await administered();
    await command(['machines', 'create', 'billing']);
    const { code, out, err } = await command(['machines', 'create', 'billing']);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(/^name_taken: Another machine is called 'billing' \(request req_\d+\)\n$/);
    expect(await command(['machines', 'get', 'mch_x'])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^invalid_input: /),
    });
    const env = { COUNTERSIGN_URL: 'http://127.0.0.1:1', COUNTERSIGN_SECRET_KEY: `sk_${'A'.repeat(49)}` };
    expect(await command(['machines', 'create', 'x'], { env })).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^network: Cannot reach http:\/\/127\.0\.0\.1:1: ECONNREFUSED\n$/),
    });
  });

  it.each([
    [['machines', 'create']],
    [['machines', 'create', 'x', '--no-such-option']],
    [['machines', 'list', '--limit', 'many', '--order-by', 'colour']],
    [['machines', 'destroy']],
    [['no-such-noun']],
    [['machines']],
  ])('answers 2 and says what it wants: %j', async (argv) => {
    const { code, err, out } = await run(argv, {
      env: { COUNTERSIGN_URL: 'http://127.0.0.1:1', COUNTERSIGN_SECRET_KEY: `sk_${'A'.repeat(49)}` },
    });
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(/Usage: countersign/);
  });

  it('refuses to send a key in the clear', async () => {
    const env = { COUNTERSIGN_URL: 'http://example.com', COUNTERSIGN_SECRET_KEY: `sk_${'A'.repeat(49)}` };
    expect(await run(['machines', 'list'], { env })).toMatchObject({
      code: 2,
      err: expect.stringContaining('must be https'),
    });
  });

  it('helps with descriptions and examples, and tells its version', async () => {
    expect(await run(['--version'])).toMatchObject({ code: 0, out: '1.2.3\n' });
    const { code, out } = await run(['--help']);
    expect(code).toBe(0);
    expect(out).toMatch(/Usage: countersign/);
    expect(out).toContain('countersign verify < key.txt');
    const { out: help } = await run(['machines', 'create', '--help']);
    expect(help).toContain('Create a machine');
    expect(help).toContain('countersign machines create billing');
    expect((await run(['verify', '--help'])).out).not.toContain('--credential');
  });
});

describe('the program', () => {
  it('says to shells what may follow, and gives them what asks it', () => {
    const program = (...argv: string[]) =>
      spawnSync(process.execPath, ['server/bin/countersign.js', ...argv], { encoding: 'utf8', env: {} });
    const proposals = (...words: string[]) =>
      program('complete', '--', ...words)
        .stdout.split('\n')
        .map((line) => line.split('\t')[0]);
    expect(proposals('machines', 'rotate-')).toEqual(['rotate-secret', 'rotate-own-secret', ':4', '']);
    expect(proposals('machines', 'create', '--may-v')).toEqual(['--may-verify', ':4', '']);
    expect(proposals('comp')).toEqual(['completion', ':4', '']);
    const { stdout: script } = program('completion', 'bash');
    expect(script).toContain('complete -F __countersign_complete countersign');
    expect(spawnSync('bash', ['-n'], { input: script, encoding: 'utf8' })).toMatchObject({
      status: 0,
      stderr: '',
    });
    for (const shell of ['zsh', 'fish'])
      expect(program('completion', shell).stdout).toContain('countersign complete --');
    expect(program('completion', 'tcsh')).toMatchObject({ status: 2, stdout: '' });
  });

  it('says nothing of a reader that is gone', () => {
    const line = 'set -o pipefail; "$0" server/bin/countersign.js --help | true';
    const { status, stderr } = spawnSync('bash', ['--norc', '-c', line, process.execPath], {
      encoding: 'utf8',
      env: {},
    });
    expect({ status, stderr }).toEqual({ status: 141, stderr: '' });
  });

  it('answers over pipes, with its exit code, from the server that is running', async () => {
    const { url, adminKey } = await startServer(freshFolder());
    const program = (argv: string[], stdin: string) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, ['server/bin/countersign.js', ...argv], {
        input: stdin,
        encoding: 'utf8',
        env: { COUNTERSIGN_URL: url },
      });
      return { status, stdout, stderr };
    };
    const created = program(['machines', 'create', 'billing', '--secret-key-stdin'], adminKey);
    expect(created).toMatchObject({ status: 0, stderr: '' });
    const { secret } = JSON.parse(created.stdout);
    expect(program(['verify', '--secret-key-stdin'], `${adminKey}\n${secret}\n`)).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('"valid": false'),
    });
    expect(program(['machines', 'list'], '')).toMatchObject({ status: 2, stdout: '' });
    expect(program(['--version'], '').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

/** A machine that may call as many as one may, its tokens living a minute. */
async function fullMachine(deps: TestDeps, name: string) {
  const admin = callerWith('admin');
  const create = (fields: z.input<typeof createMachineInput>) =>
    createMachine(deps, admin, createMachineInput.parse(fields));
  const machine = await create({ name, defaultTokenTtlSeconds: 60, maxTokenTtlSeconds: 60 });
  const called = await Promise.all(
    Array.from({ length: MACHINE_SCOPES_MAX }, (_, i) => create({ name: `called ${i}` })),
  );
  await Promise.all(called.map(({ id }) => allow(deps, machine.id, id)));
  return machine;
}

describe('countersign apply', () => {
  const FILE = {
    machines: [
      { name: 'billing', description: 'invoices', calls: [{ machine: 'ledger', scopes: ['entries:write'] }] },
      { name: 'ledger', mayVerify: true, defaultTokenTtlSeconds: 600 },
    ],
  };

  async function applied(content: unknown = FILE) {
    const server = await administered();
    const folder = freshFolder();
    const file = join(folder, 'machines.json');
    const secrets = join(folder, 'secrets');
    const write = (wanted: unknown) =>
      writeFileSync(file, typeof wanted === 'string' ? wanted : JSON.stringify(wanted));
    write(content);
    const apply = async (...options: string[]) => {
      const ran = await server.command(['apply', file, ...options]);
      return { ...ran, report: ran.code === 0 ? JSON.parse(ran.out) : undefined };
    };
    return {
      ...server,
      write,
      apply,
      secrets,
      applyTo: (...options: string[]) => apply('--write-env', secrets, ...options),
    };
  }

  it('makes machines and machine scopes, and leaves each secret in a file of its own that works', async () => {
    const { applyTo, secrets, url, json } = await applied();
    const { report, err } = await applyTo();
    expect(report.changes).toEqual([
      { action: 'create', machine: 'billing' },
      { action: 'create', machine: 'ledger' },
      { action: 'allow', machine: 'billing', to: 'ledger', scopes: ['entries:write'] },
    ]);
    expect(err).toMatch(/^Done: create the machine 'billing'$/m);
    expect(readdirSync(secrets).sort()).toEqual(['billing.env', 'ledger.env']);
    expect(statSync(join(secrets, 'billing.env')).mode & 0o777).toBe(0o600);
    expect(statSync(secrets).mode & 0o777).toBe(0o700);
    const variables = Object.fromEntries(
      readFileSync(join(secrets, 'billing.env'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split('=') as [string, string]),
    );
    expect(variables['COUNTERSIGN_URL']).toBe(url);
    const minted = await run(['m2m-tokens', 'create'], { env: variables });
    const { data: machines } = await json('machines', 'list', '--query', 'ledger');
    expect(JSON.parse(minted.out)).toMatchObject({ audience: [machines[0].id], scopes: ['entries:write'] });
  });

  it('sets rotation policies, changes them, and leaves those alone that the file does not speak of', async () => {
    const rotating = (periodSeconds: number) => ({
      machines: [{ name: 'billing', rotation: { periodSeconds } }],
    });
    const { applyTo, write, json } = await applied(rotating(86_400));
    await applyTo();
    expect((await applyTo()).report.changes).toEqual([]);
    write(rotating(7200));
    expect((await applyTo()).report.changes).toEqual([
      { action: 'update', machine: 'billing', fields: ['rotation'] },
    ]);
    write({ machines: [{ name: 'billing' }] });
    expect((await applyTo()).report.changes).toEqual([]);
    const { data: machines } = await json('machines', 'list');
    expect(machines[0]).toMatchObject({ rotation: { periodSeconds: 7200, atDeadline: 'warn' } });
  });

  it('changes nothing the second time, and says so', async () => {
    const { applyTo, deps, secrets } = await applied();
    await applyTo();
    const events = await eventTypes(deps);
    const secret = readFileSync(join(secrets, 'billing.env'), 'utf8');
    const { code, report, err } = await applyTo();
    expect({ code, err }).toEqual({ code: 0, err: 'Nothing to change\n' });
    expect(report.changes).toEqual([]);
    expect(await eventTypes(deps)).toEqual(events);
    expect(readFileSync(join(secrets, 'billing.env'), 'utf8')).toBe(secret);
  });

  it('changes what differs, and takes away what is not listed only with --prune', async () => {
    const { applyTo, write, json } = await applied();
    await applyTo();
    write({
      machines: [
        { name: 'billing', calls: [{ machine: 'search', scopes: [] }] },
        { name: 'ledger', mayVerify: false, calls: [{ machine: 'billing' }] },
        { name: 'search' },
      ],
    });
    const { report, err } = await applyTo();
    expect(report.changes).toEqual([
      { action: 'create', machine: 'search' },
      { action: 'update', machine: 'ledger', fields: ['mayVerify'] },
      { action: 'allow', machine: 'billing', to: 'search', scopes: [] },
      { action: 'allow', machine: 'ledger', to: 'billing', scopes: [] },
    ]);
    expect(report.unlisted).toEqual([{ machine: 'billing', to: 'ledger' }]);
    expect(err).toContain("'billing' may call 'ledger', which the file does not list");
    expect((await json('machines', 'list', '--query', 'billing')).data).toMatchObject([
      { description: 'invoices' },
    ]);
    const pruned = await applyTo('--prune');
    expect(pruned.report.changes).toEqual([{ action: 'disallow', machine: 'billing', to: 'ledger' }]);
    expect((await json('machine-scopes', 'list')).data).toHaveLength(2);
  });

  it('changes nothing with --dry-run, and says what it would', async () => {
    const { applyTo, deps, secrets } = await applied();
    const events = await eventTypes(deps);
    const { report, err } = await applyTo('--dry-run');
    expect(report).toMatchObject({ dryRun: true, changes: [{ machine: 'billing' }, {}, {}] });
    expect(err).toContain("Would do: create the machine 'billing'");
    expect(await eventTypes(deps)).toEqual(events);
    expect(() => readdirSync(secrets)).toThrow(/ENOENT/);
  });

  it('reports a machine that is there while its file is not, and gives it no new secret', async () => {
    const { applyTo, secrets, deps } = await applied();
    await applyTo();
    rmSync(join(secrets, 'ledger.env'));
    const events = await eventTypes(deps);
    const { report, err } = await applyTo();
    expect(report.withoutEnvFile).toEqual(['ledger']);
    expect(err).toContain("The machine 'ledger' is there and has no file");
    expect(await eventTypes(deps)).toEqual(events);
  });

  it('replaces the file of a machine that was deleted and is created again', async () => {
    const { applyTo, secrets, json } = await applied({ machines: [{ name: 'billing' }] });
    await applyTo();
    const before = readFileSync(join(secrets, 'billing.env'), 'utf8');
    const { data } = await json('machines', 'list');
    await json('machines', 'delete', data[0].id);
    await applyTo();
    expect(readFileSync(join(secrets, 'billing.env'), 'utf8')).not.toBe(before);
    expect(readdirSync(secrets)).toEqual(['billing.env']);
  });

  it('keeps no machine whose secret could not be kept', async () => {
    const { apply, write, json } = await applied();
    const occupied = freshFolder();
    write({ machines: [{ name: 'billing' }] });
    // A folder cannot be replaced by a file: the secret is there, and the last step fails.
    mkdirSync(join(occupied, 'billing.env'));
    expect((await apply('--write-env', occupied)).code).not.toBe(0);
    expect((await json('machines', 'list')).data).toEqual([]);
    expect(readdirSync(occupied)).toEqual(['billing.env']);
  });

  it.each([
    ['no JSON', '{', /wanted valid JSON/],
    ['an unknown field', { machines: [{ name: 'a', owner: 'b' }] }, /machines\.0/],
    ['a name twice', { machines: [{ name: 'a' }, { name: 'A' }] }, /wanted each name once/],
    [
      'a call to nobody',
      { machines: [{ name: 'a', calls: [{ machine: 'b' }] }] },
      /neither the file nor the server/,
    ],
    [
      'a call to itself',
      { machines: [{ name: 'a', calls: [{ machine: 'a' }] }] },
      /other machines than itself/,
    ],
    ['a name that climbs', { machines: [{ name: 'ok' }, { name: '../a' }] }, /a name that can name its file/],
    [
      'a scope that looks like a machine',
      { machines: [{ name: 'a', calls: [{ machine: 'b', scopes: ['mch_bad'] }] }, { name: 'b' }] },
      /machines\.0\.calls\.0\.scopes.*no scope that begins with 'mch_'/,
    ],
    [
      'a default lifetime beyond the longest',
      { machines: [{ name: 'ok' }, { name: 'a', defaultTokenTtlSeconds: 61, maxTokenTtlSeconds: 60 }] },
      /'a'.*'defaultTokenTtlSeconds' must be at most 'maxTokenTtlSeconds' \(60\), got 61/,
    ],
    [
      'a default lifetime beyond the longest there is without one',
      { machines: [{ name: 'ok' }, { name: 'a', defaultTokenTtlSeconds: 2_592_001 }] },
      /'a'.*must be at most 'maxTokenTtlSeconds' \(2592000\), got 2592001/,
    ],
    [
      'a longest lifetime below the default there is without one',
      { machines: [{ name: 'ok' }, { name: 'a', maxTokenTtlSeconds: 60 }] },
      /'a'.*must be at most 'maxTokenTtlSeconds' \(60\), got 3600/,
    ],
    [
      'more calls than a machine may make',
      {
        machines: [
          { name: 'a', calls: Array.from({ length: 151 }, (_, i) => ({ machine: `m${i}` })) },
          ...Array.from({ length: 151 }, (_, i) => ({ name: `m${i}` })),
        ],
      },
      /machines\.0\.calls.*at most 150 items, found a list of 151 items/,
    ],
  ])('refuses a file with %s before it changes anything', async (_, content, message) => {
    const { applyTo, deps } = await applied(content);
    const events = await eventTypes(deps);
    for (const options of [['--dry-run'], []]) {
      const { code, err } = await applyTo(...options);
      expect(code).toBe(1);
      expect(err).toMatch(message);
      expect(await eventTypes(deps)).toEqual(events);
    }
  });

  it.each([
    [
      'a default lifetime beyond the longest that the machine has',
      { name: 'billing', defaultTokenTtlSeconds: 61 },
      /'billing'.*must be at most 'maxTokenTtlSeconds' \(60\), got 61/,
    ],
    [
      'one call more than the machine may make beside those it has',
      { name: 'billing', calls: [{ machine: 'new' }] },
      /'billing'.*at most 150 .* 151/,
    ],
  ])('refuses %s before it changes anything', async (_, machine, message) => {
    const { applyTo, deps, write, json } = await applied();
    const { id } = await fullMachine(deps, 'billing');
    write({ machines: [{ name: 'new' }, machine] });
    const events = await eventTypes(deps);
    for (const options of [['--dry-run'], []]) {
      const { code, err } = await applyTo(...options);
      expect(code).toBe(1);
      expect(err).toMatch(message);
      expect(await eventTypes(deps)).toEqual(events);
    }
    expect(await json('machines', 'get', id)).toMatchObject({ maxTokenTtlSeconds: 60 });
  });

  it('takes away before it allows: a machine that may call no more can call another instead', async () => {
    const { applyTo, deps, write, json } = await applied();
    const { id } = await fullMachine(deps, 'billing');
    write({ machines: [{ name: 'new' }, { name: 'billing', calls: [{ machine: 'new' }] }] });
    expect(await applyTo('--prune')).toMatchObject({ code: 0 });
    const { data } = await json('machine-scopes', 'list', '--from-machine-id', id);
    expect(data).toHaveLength(1);
  });

  it('refuses to create machines with nowhere to leave their secrets', async () => {
    const { apply, deps } = await applied();
    const events = await eventTypes(deps);
    expect(await apply()).toMatchObject({ code: 1, err: expect.stringContaining('--write-env') });
    expect(await eventTypes(deps)).toEqual(events);
  });
});
