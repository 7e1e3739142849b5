import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freshFolder } from './support/deps.ts';
import { startServer } from './support/server.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
/** By their paths: which of the two is linked as `tsc`, npm decides. */
const COMPILERS = {
  'TypeScript 6': '@typescript/typescript6/bin/tsc6',
  'TypeScript 7': 'typescript/bin/tsc',
};
/** On a machine that has much else to do. */
const COMPILING_MS_MAX = 120_000;

const CONSUMER = `
import {
  type Countersign, CountersignError, createCountersign, ERRORS, type ErrorCode, type EventType, type Outputs, type VerifyResult,
} from 'countersign';
import { CountersignError as Refused, ERRORS as CODES, type ErrorCode as Code } from 'countersign/errors';

const admin: Countersign = createCountersign();
const caller = await admin.machines.create({ name: 'billing' });
const callee: Outputs['machines']['create'] = await admin.machines.create({ name: 'ledger', mayVerify: true });
await admin.machineScopes.create({ fromMachineId: caller.id, toMachineId: callee.id, scopes: ['entries:write'] });

const { token = '' } = await createCountersign({ machineSecretKey: caller.secret }).m2mTokens.create({ format: 'jwt' });
const receiver = createCountersign({ machineSecretKey: callee.secret, timeoutMs: 4000, retries: 1 });
const result: VerifyResult = await receiver.verify({ credential: token }, { signal: AbortSignal.timeout(4000) });
const subject: string | undefined = result.valid ? result.subject : undefined;
const reason: string | undefined = result.valid ? undefined : result.reason;

const events = await admin.events.list();
const types: EventType[] = events.data.map((event) => event.type);
const code: ErrorCode | undefined = await admin.machines.get({ id: 'mch_000000000000000000000000000' }).then(
  () => undefined,
  (error: unknown) => (error instanceof CountersignError ? error.code : undefined),
);
const sameCode: Code | undefined = await admin.machines.get({ id: 'mch_000000000000000000000000000' }).then(
  () => undefined,
  (error: unknown) => (error instanceof Refused ? error.code : undefined),
);
const same = { classes: Refused === CountersignError, tables: CODES === ERRORS, code: sameCode };
export const seen = { subject, expected: caller.id, reason, types, code, same, meaning: code && ERRORS[code].meaning };
`;

/** A service and who calls it, in one program: the handler stands where the network would. */
const SERVICE = `
import { createCountersign, type CountersignError } from 'countersign';
import { clientVerifier, protect as protectRoute, type Refusal } from 'countersign/express';
import { protect, protectedResourceMetadata } from 'countersign/fetch';
import { createM2mFetch, createM2mTokenSource, type M2mTokenSource } from 'countersign/m2m';

const admin = createCountersign();
const caller = await admin.machines.create({ name: 'caller' });
const callee = await admin.machines.create({ name: 'callee' });
await admin.machineScopes.create({ fromMachineId: caller.id, toMachineId: callee.id, scopes: ['entries:write'] });

const refusals: Refusal[] = [];
const verifier = clientVerifier(createCountersign({ machineSecretKey: callee.secret }));
const service = protect({ verifier, kinds: ['m2m_token'], scopes: ['entries:write'] });
const handle = service.handle((_, auth) => new Response(auth.machineId));
const tokens: M2mTokenSource = createM2mTokenSource({ countersign: createCountersign({ machineSecretKey: caller.secret }) });
const origins = ['https://callee.example.com'];
const call = createM2mFetch({
  tokens,
  origins,
  scopes: ['entries:write'],
  fetch: (input, init) => handle(new Request(input, init)),
});
const answer = await call('https://callee.example.com/entries');
const elsewhere: string = await call('https://elsewhere.example.com/').then(
  () => 'sent',
  (error: CountersignError) => error.code,
);
tokens.close();

const route = protectRoute({ verifier, kinds: ['api_key'], optional: true, onRefusal: (refusal) => refusals.push(refusal) });
const request = { headers: {} };
await new Promise<void>((resolve) => route(request, { statusCode: 200, setHeader() {}, end() {} }, () => resolve()));
const name: string | undefined = route.authOf(request)?.name;
const metadata = protectedResourceMetadata({ resource: 'https://callee.example.com', authorizationServers: [] });
const resource = metadata(new Request('https://callee.example.com/.well-known/oauth-protected-resource'));
export const seen = {
  calling: [answer.status, await answer.text() === caller.id],
  anonymous: (await handle(new Request('https://callee.example.com/'))).status,
  elsewhere, name: name ?? null, refusals, resource: resource?.status,
};
`;

const VERIFYING = `
import { createCountersign, type Outputs } from 'countersign';
import { protect } from 'countersign/fetch';
import { createVerifier, type Verifier, type VerifierEvent, type VerifyResult } from 'countersign/verifier';

const admin = createCountersign();
const key: Outputs['apiKeys']['create'] = await admin.apiKeys.create({ name: 'script', subject: 'user_1', scopes: ['read'] });
const events: VerifierEvent[] = [];
const verifier: Verifier = createVerifier({ onEvent: (event) => events.push(event) });
while (!verifier.status().trusted) await new Promise((resolve) => setTimeout(resolve, 10));
const first: VerifyResult = await verifier.verify(key.secret ?? '', { scopes: ['read'] });
await verifier.verify(key.secret ?? '');
const { auth } = await protect({ verifier, kinds: ['api_key'] }).judge(
  new Request('https://example.com/', { headers: { authorization: 'Bearer ' + key.secret } }),
);
await verifier.close();
const from = events.flatMap((event) => (event.type === 'verified' ? [event.from] : []));
export const seen = { valid: first.valid, subject: auth?.subject, from };
`;

const PROGRAMS = { 'consumer.ts': CONSUMER, 'service.ts': SERVICE, 'verifying.ts': VERIFYING };

const printing = (program: string) =>
  `import { seen } from './${program}.js';\nprocess.stdout.write(JSON.stringify(seen));\n`;

const ALONE = `
import { CountersignError, ERRORS } from 'countersign/errors';
process.stdout.write(JSON.stringify([new CountersignError('not_found', 'none').status, ERRORS.not_found.status]));
`;

const MISTAKEN = `
import { createCountersign } from 'countersign';
const countersign = createCountersign({ url: 'https://example.com' });
await countersign.machines.create({ nmae: 'billing' });
await countersign.machines.crate({ name: 'billing' });
const result = await countersign.verify({ credential: 'x' });
export const subject: string = result.subject;
`;

interface Ran {
  code: number;
  output: string;
}

/** Runs a program in a folder, without what npm tells the programs it runs itself. */
function run(folder: string, program: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ran> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(npm_|COUNTERSIGN_)/i.test(name));
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { cwd: folder, env: { ...Object.fromEntries(inherited), ...env } },
      (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code ?? 1) : 0, output: stdout + stderr });
      },
    );
  });
}

function compile(folder: string, compiler: string, programs: Record<string, string>): Promise<Ran> {
  const options = {
    strict: true,
    skipLibCheck: false,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    target: 'es2023',
    lib: ['es2023', 'dom'],
    module: 'nodenext',
    types: [],
    rootDir: '.',
    outDir: 'out',
  };
  for (const [file, program] of Object.entries(programs)) writeFileSync(join(folder, file), program);
  const config = { compilerOptions: options, files: Object.keys(programs) };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
  return run(folder, process.execPath, [join(ROOT, 'node_modules', compiler), '-p', '.']);
}

describe('the tarball', () => {
  let folder = '';
  let installed = '';

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'countersign-tarball-'));
    const packed = await run(ROOT, 'npm', ['pack', '--pack-destination', folder]);
    expect(packed).toMatchObject({ code: 0 });
    // What it depends on comes from here: which answers of a registry's npm keeps, and asks for, differs from version to version.
    const lruCache = join(ROOT, 'node_modules/lru-cache');
    const packedToo = await run(folder, 'npm', ['pack', '--ignore-scripts', lruCache]);
    expect(packedToo).toMatchObject({ code: 0 });
    const tarballs = readdirSync(folder).filter((file) => file.endsWith('.tgz'));
    expect(tarballs).toHaveLength(2);
    writeFileSync(
      join(folder, 'package.json'),
      JSON.stringify({ name: 'consumer', private: true, type: 'module' }),
    );
    const added = await run(folder, 'npm', [
      'install',
      '--offline',
      '--no-audit',
      '--no-fund',
      ...tarballs.map((file) => `./${file}`),
    ]);
    expect(added).toMatchObject({ code: 0 });
    installed = join(folder, 'node_modules/countersign');
  }, 300_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('holds the client, rolled up, and nothing of the server', () => {
    const files = readdirSync(installed, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(installed, join(entry.parentPath, entry.name)));
    const documents =
      'package.json README.md LICENSE CHANGELOG.md docs/errors.md docs/events.md docs/m2m.md docs/middlewares.md docs/panel.md docs/rotation.md docs/verifier.md docs/verify.md docs/webhooks.md'.split(
        ' ',
      );
    expect(documents.filter((file) => !files.includes(file))).toEqual([]);
    expect(files.filter((file) => !documents.includes(file)).sort()).toEqual([
      'dist/package/answers.js',
      'dist/package/errors.d.ts',
      'dist/package/errors.js',
      'dist/package/event-types.d.ts',
      'dist/package/express.d.ts',
      'dist/package/express.js',
      'dist/package/fast-calls.js',
      'dist/package/fetch.d.ts',
      'dist/package/fetch.js',
      'dist/package/index.d.ts',
      'dist/package/index.js',
      'dist/package/m2m.d.ts',
      'dist/package/m2m.js',
      'dist/package/options.js',
      'dist/package/panel.css',
      'dist/package/protected-resource.js',
      'dist/package/react.d.ts',
      'dist/package/react.js',
      'dist/package/resource-metadata.d.ts',
      'dist/package/resources.js',
      'dist/package/router.d.ts',
      'dist/package/transport.js',
      'dist/package/verifier.d.ts',
      'dist/package/verifier.js',
      'dist/package/webhooks.d.ts',
      'dist/package/webhooks.js',
    ]);
  });

  it('needs nothing but Node and lru-cache', () => {
    expect(readdirSync(join(folder, 'node_modules')).filter((name) => !name.startsWith('.'))).toEqual([
      'countersign',
      'lru-cache',
    ]);
    const importsOf = (file: string) =>
      [
        ...readFileSync(join(installed, file), 'utf8').matchAll(
          /(?:^(?:import|export) [^'"]*|\bimport\()['"]([^'"\n]+)['"]/gm,
        ),
      ].map(([, from]) => from);
    expect(new Set(importsOf('dist/package/index.d.ts'))).toEqual(
      new Set(['./errors.js', './event-types.js', './router.js']),
    );
    const foreignTo = (entry: string) =>
      importsOf(`dist/package/${entry}`).filter((from) => !from?.startsWith('node:'));
    expect(new Set(foreignTo('index.js'))).toEqual(
      new Set(['./answers.js', './fast-calls.js', './transport.js', './options.js', './errors.js']),
    );
    expect(foreignTo('verifier.js').filter((from) => !from?.startsWith('./'))).toEqual(['lru-cache']);
    for (const entry of [
      'answers.js',
      'express.js',
      'fetch.js',
      'm2m.js',
      'options.js',
      'protected-resource.js',
      'transport.js',
    ]) {
      expect(foreignTo(entry).filter((from) => !from?.startsWith('./'))).toEqual([]);
      // Who only verifies loads no tRPC.
      expect(foreignTo(entry)).not.toContain('./index.js');
    }
    expect(foreignTo('verifier.js')).not.toContain('./index.js');
    // A page loads React, which it has, and two files of ours that know nothing of Node.
    expect(new Set(importsOf('dist/package/react.js'))).toEqual(
      new Set(['react', 'react/jsx-runtime', './answers.js', './errors.js']),
    );
    expect(importsOf('dist/package/answers.js')).toEqual(['./errors.js']);
    for (const file of ['dist/package/errors.js', 'dist/package/errors.d.ts']) {
      expect(importsOf(file)).toEqual([]);
      expect(readFileSync(join(installed, file), 'utf8')).not.toMatch(/trpc/i);
    }
  });

  it.each(Object.entries(COMPILERS))(
    'is typed in full under %s, its own declarations checked',
    { timeout: COMPILING_MS_MAX },
    async (_, compiler) => {
      expect(await compile(folder, compiler, PROGRAMS)).toEqual({ code: 0, output: '' });
    },
  );

  it.each(Object.entries(COMPILERS))(
    'tells mistakes under %s',
    { timeout: COMPILING_MS_MAX },
    async (_, compiler) => {
      const { code, output } = await compile(folder, compiler, { 'mistaken.ts': MISTAKEN });
      expect(code).not.toBe(0);
      expect(output).toMatch(/mistaken\.ts\(4,.*'nmae' does not exist/);
      expect(output).toMatch(/mistaken\.ts\(5,.*'crate' does not exist/);
      expect(output).toMatch(/mistaken\.ts\(7,.*TS2322/);
      expect(output.match(/error TS/g)).toHaveLength(3);
    },
  );

  it('hands out its errors alone', async () => {
    writeFileSync(join(folder, 'alone.mjs'), ALONE);
    expect(await run(folder, process.execPath, ['alone.mjs'])).toEqual({ code: 0, output: '[404,404]' });
  });

  it('works against a running server', async () => {
    const { url, adminKey } = await startServer(freshFolder());
    writeFileSync(join(folder, 'out/print.js'), printing('consumer'));
    const env = { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: adminKey };
    const { code, output } = await run(folder, process.execPath, ['out/print.js'], env);
    expect({ code, output }).toMatchObject({ code: 0 });
    const seen = JSON.parse(output);
    expect(seen.subject).toBe(seen.expected);
    expect(seen.types).toEqual([
      'installation.created',
      'machine.created',
      'machine.created',
      'machine_scope.created',
    ]);
    expect(seen).toMatchObject({
      code: 'not_found',
      same: { classes: true, tables: true, code: 'not_found' },
      meaning: expect.any(String),
    });
  });

  it('protects and calls services against a running server', async () => {
    const { url, adminKey } = await startServer(freshFolder());
    writeFileSync(join(folder, 'out/serve.js'), printing('service'));
    const env = { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: adminKey };
    const { code, output } = await run(folder, process.execPath, ['out/serve.js'], env);
    expect({ code, output }).toMatchObject({ code: 0 });
    expect(JSON.parse(output)).toEqual({
      calling: [200, true],
      anonymous: 401,
      elsewhere: 'url_not_allowed',
      name: null,
      refusals: [],
      resource: 200,
    });
  });

  it('verifies from memory, and lets the process end', async () => {
    const { url, adminKey } = await startServer(freshFolder());
    writeFileSync(join(folder, 'out/verify.js'), printing('verifying'));
    const env = { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: adminKey };
    const { code, output } = await run(folder, process.execPath, ['out/verify.js'], env);
    expect({ code, output }).toMatchObject({ code: 0 });
    expect(JSON.parse(output)).toEqual({
      valid: true,
      subject: 'user_1',
      from: ['server', 'memory', 'memory'],
    });
  });
});
