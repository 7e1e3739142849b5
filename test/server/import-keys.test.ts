import { hash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { runCommand } from '../../server/cli.ts';
import {
  createApiKey,
  createApiKeyInput,
  listApiKeys,
  listApiKeysInput,
} from '../../server/domain/api-keys.ts';
import { listEvents } from '../../server/domain/events.ts';
import { findOwner } from '../../server/domain/secrets.ts';
import { startChild } from '../support/children.ts';
import { callerWith, freshFolder, openTestDeps, type TestDeps } from '../support/deps.ts';
import { listen, serveProcedures } from '../support/procedures.ts';

/** What a server of the project reads of one request. */
const BODY_BYTES_MAX = 1024 * 1024;

/** A server that a test can see through, and make silent or go away. */
interface Watched {
  url: string;
  bodies: string[];
  /** Told of each import once it was carried out; while it is waited for, the answer is not sent. */
  beforeAnswer: (imports: number) => Promise<void> | void;
  isAway: boolean;
}

async function watchServer(deps: TestDeps): Promise<Watched> {
  const { url: inner } = await serveProcedures(deps);
  const watched: Watched = { url: '', bodies: [], beforeAnswer: () => {}, isAway: false };
  let imports = 0;
  async function forward(request: IncomingMessage, response: ServerResponse) {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    watched.bodies.push(body);
    if (watched.isAway) return void request.socket.destroy();
    const answer = await fetch(inner + request.url, {
      method: 'POST',
      headers: {
        authorization: String(request.headers.authorization),
        'content-type': 'application/json',
      },
      body,
    });
    const text = await answer.text();
    await watched.beforeAnswer(++imports);
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(text);
  }
  const { url } = await listen((request, response) => void forward(request, response));
  watched.url = url;
  return watched;
}

interface Situation {
  stdin?: string;
  isTTY?: boolean;
  url?: string;
}

async function setup() {
  const deps = await openTestDeps('sqlite');
  const server = await watchServer(deps);
  const folder = freshFolder();
  const path = (name: string) => join(folder, name);
  async function run(argv: string[], { stdin = '', isTTY = false, url = server.url }: Situation = {}) {
    const ran = { out: '', err: '' };
    const code = await runCommand(['import-keys', ...argv], {
      env: { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: deps.adminKey },
      stdin: Readable.from([stdin]),
      stdout: { write: (text) => (ran.out += text) },
      stderr: { isTTY, write: (text) => (ran.err += text) },
      version: '1.2.3',
    });
    return { code, ...ran, totals: ran.out === '' ? undefined : JSON.parse(ran.out) };
  }
  return {
    deps,
    server,
    path,
    run,
    write: (name: string, text: string) => {
      writeFileSync(path(name), text);
      return path(name);
    },
    report: (name: string) =>
      readFileSync(path(name), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line)),
    keys: async () => {
      const { db, tables } = deps.store.read;
      return db.select().from(tables.apiKeys);
    },
  };
}

const ndjson = (records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');
const sha256 = (value: string) => hash('sha256', value, 'hex');
const eventTypes = async (deps: TestDeps) =>
  (await listEvents(deps, { after: 1, limit: 500 })).data.map(({ type }) => type);

describe('countersign import-keys', () => {
  it('imports values and hashes, sends no value, and leaves nothing to go on with', async () => {
    const { deps, server, write, run, path } = await setup();
    const file = write(
      'keys.ndjson',
      ndjson([
        {
          value: 'acme_live_0123456789abcdef',
          subject: 'user_1',
          name: 'one',
          scopes: ['read'],
          createdAt: '2020-01-31T12:00:00Z',
        },
        { hash: sha256('acme_live_other'), subject: 'user_2', name: 'two', start: 'acme_live_ot' },
      ]),
    );
    const ran = await run([file, '--shape-prefix', 'acme_live_', '--shape-prefix', 'acme_test_']);
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.totals).toEqual({
      dryRun: false,
      records: 2,
      imported: 2,
      existing: 0,
      refused: 0,
      sendable: 0,
    });
    expect(existsSync(path('keys.ndjson.progress'))).toBe(false);
    const { data } = await listApiKeys(deps, listApiKeysInput.parse({ direction: 'ascending' }));
    expect(data).toMatchObject([
      { name: 'one', start: 'acme_live_0123', scopes: ['read'], createdAt: Date.UTC(2020, 0, 31, 12) },
      { name: 'two', start: 'acme_live_ot' },
    ]);
    expect(await findOwner(deps, 'acme_live_0123456789abcdef')).toEqual({
      kind: 'api_key',
      id: data[0]?.id,
    });
    const { db, tables } = deps.store.read;
    const shapes = await db.select().from(tables.importedShapes);
    expect(shapes.map(({ prefix, length }) => [prefix, length]).sort()).toEqual([
      ['acme_live_', 0],
      ['acme_test_', 0],
    ]);
    expect(server.bodies.join()).toContain(sha256('acme_live_0123456789abcdef'));
    expect(server.bodies.join()).not.toContain('456789');
  });

  it('imports CSV, by its name or because it is said so, and from standard input', async () => {
    const { write, run, keys } = await setup();
    const header = 'hash,subject,name,claims\n';
    const file = write('keys.csv', `${header}${sha256('a')},user_1,"one, first","{""plan"":1}"\n`);
    expect((await run([file])).totals).toMatchObject({ records: 1, imported: 1 });
    const stdin = `${header}${sha256('b')},user_1,two,\n`;
    expect((await run(['-', '--format', 'csv'], { stdin })).totals).toMatchObject({ imported: 1 });
    const more = ndjson([{ hash: sha256('c'), subject: 'user_1', name: 'three' }]);
    expect((await run(['-'], { stdin: more })).totals).toMatchObject({ imported: 1 });
    expect(await keys()).toMatchObject([
      { name: 'one, first', claims: { plan: 1 } },
      { name: 'two', claims: null },
      { name: 'three' },
    ]);
  });

  it('reports each line that was refused, here or by the server, and answers 1', async () => {
    const { server, write, run, report, path } = await setup();
    const secret = 'acme_secret_value_of_somebody';
    const file = write(
      'keys.ndjson',
      ndjson([
        { hash: sha256('a'), subject: 'user_1', name: 'one' },
        { value: secret, subject: 'user_1', name: 'no shape' },
        { value: 'acme_live_1', hash: sha256('x'), subject: 'user_1', name: 'both' },
        { value: `msk_${secret}`, subject: 'user_1', name: 'reserved' },
        { hash: secret, subject: 'user_1', name: 'no hash' },
        { key: secret, subject: 'user_1', name: 'unknown field' },
        { hash: sha256('b'), subject: 'user_1', name: 'one' },
        { hash: sha256('c'), subject: 'user_1', name: 'two', claims: { iss: 'x' } },
        { value: 'acme_live_2', subject: 'user_1', name: 'wrong length' },
      ]) + secret,
    );
    const options = ['--shape-prefix', 'acme_live_', '--shape-length', '30', '--report', path('refused')];
    const ran = await run([file, ...options]);
    expect(ran.code).toBe(1);
    expect(ran.totals).toMatchObject({ records: 10, imported: 1, existing: 0, refused: 9 });
    expect(report('refused').map(({ line, code, field }) => [line, code, field])).toEqual([
      [2, 'invalid_input', 'value'],
      [3, 'invalid_input', 'value'],
      [4, 'invalid_input', 'value'],
      [5, 'invalid_input', 'hash'],
      [6, 'invalid_input', null],
      [7, 'name_taken', 'name'],
      [8, 'reserved_claim', 'claims'],
      [9, 'invalid_input', 'value'],
      [10, 'invalid_input', null],
    ]);
    expect(ran.err).toMatch(/^Line 7: name_taken: Another live API key of 'user_1' is called 'one'$/m);
    expect(ran.err + readFileSync(path('refused'), 'utf8') + server.bodies.join()).not.toContain(secret);
  });

  it('shows the first refusals, and says where the others are', async () => {
    const { write, run } = await setup();
    const file = write('keys.ndjson', '{}\n'.repeat(30));
    const { err, totals } = await run([file]);
    expect(totals).toMatchObject({ records: 30, refused: 30 });
    expect(err.split('\n').filter((line) => line.startsWith('Line '))).toHaveLength(20);
    expect(err).toMatch(/\nMore was refused: --report has it all\n$/);
  });

  it('takes what is of our own format without any shape', async () => {
    const { deps, write, run } = await setup();
    const input = createApiKeyInput.parse({ name: 'x', subject: 'user_1' });
    const { secret } = await createApiKey(deps, callerWith('admin'), input);
    const file = write('keys.ndjson', ndjson([{ value: secret, subject: 'user_1', name: 'again' }]));
    expect((await run([file])).totals).toMatchObject({ existing: 1, refused: 0 });
  });

  it('sends nothing in a dry run, and says what would be', async () => {
    const { server, write, run, path, report } = await setup();
    const file = write('keys.ndjson', ndjson([{ hash: sha256('a'), subject: 'u', name: 'n' }, {}]));
    const ran = await run([file, '--dry-run', '--report', path('refused')]);
    expect(ran.code).toBe(1);
    expect(ran.totals).toMatchObject({ dryRun: true, records: 2, sendable: 1, refused: 1, imported: 0 });
    expect(report('refused')).toMatchObject([{ line: 2, field: 'hash' }]);
    expect(server.bodies).toEqual([]);
    expect(existsSync(`${file}.progress`)).toBe(false);
  });

  it('shows how far it is on a terminal, and nothing elsewhere', async () => {
    const { write, run } = await setup();
    const file = write('keys.ndjson', ndjson([{ hash: sha256('a'), subject: 'u', name: 'n' }]));
    expect((await run([file], { isTTY: true })).err).toBe('\r\u001b[K100 %, 1 keys, 0 refused\r\u001b[K');
    expect((await run([file])).err).toBe('');
  });

  it('refuses what it cannot read or write, and a key and the keys both on standard input', async () => {
    const { write, run, path } = await setup();
    const file = write('keys.ndjson', '{}');
    expect(await run([path('none')])).toMatchObject({ code: 1, err: expect.stringContaining('ENOENT') });
    expect(await run([path('.')])).toMatchObject({ code: 1, err: expect.stringContaining('wanted a file') });
    expect(await run([file, '--report', file])).toMatchObject({
      code: 1,
      err: expect.stringContaining('Cannot write the report over'),
    });
    expect(readFileSync(file, 'utf8')).toBe('{}');
    expect(await run([file, '--report', path('none/report')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('ENOENT'),
    });
    expect(await run(['-', '--secret-key-stdin'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('found both'),
    });
    expect(await run([])).toMatchObject({ code: 2 });
  });
});

describe('countersign import-keys that is cut off', () => {
  const LINES = 5_000;
  const PATIENCE_MS = 120_000;
  /** Long ones, so that there are many batches; every thousandth is refused here, and another by the server. */
  function manyKeys(run: string) {
    return Array.from({ length: LINES }, (_, index) => ({
      value: `acme_${run}_${index}`,
      subject: index % 1000 === 500 ? 'user_same' : `user_${index}`,
      name: index % 1000 === 700 ? '' : 'imported',
      description: 'x'.repeat(200),
    }));
  }

  it(
    'goes on after it was killed, and every key is there once, every refusal reported once',
    async () => {
      const { deps, server, write, run, path, report, keys } = await setup();
      const name = randomBytes(4).toString('hex');
      const file = write('keys.ndjson', ndjson(manyKeys(name)));
      const argv = [file, '--shape-prefix', `acme_${name}_`, '--report', path('refused')];

      const held = new Promise<void>((resolve) => {
        server.beforeAnswer = (imports) => {
          if (imports <= 3) return;
          resolve();
          return new Promise(() => {});
        };
      });
      const child = startChild(
        new URL('./import-keys-process.ts', import.meta.url),
        server.url,
        deps.adminKey,
        ...argv,
      );
      await held;
      await child.kill();
      const { state } = JSON.parse(readFileSync(`${file}.progress`, 'utf8'));
      const there = (await keys()).length;
      expect(state.totals.records).toBeGreaterThan(0);
      expect(state.totals.imported).toBeLessThan(there);
      expect(there).toBeLessThan(LINES - 10);
      const sentBefore = server.bodies.length;

      server.beforeAnswer = () => {};
      const resumed = await run(argv);
      expect(resumed.err).toMatch(new RegExp(`^Going on after line ${state.place.lines} of `));
      expect(resumed.code).toBe(1);
      const { imported, existing } = resumed.totals;
      expect(resumed.totals).toMatchObject({ records: LINES, refused: 9 });
      expect(imported + existing).toBe(LINES - 9);
      // What was being carried out when it was killed may have arrived after it was looked.
      expect(existing).toBeGreaterThanOrEqual(there - state.totals.imported);
      const first = sha256(`acme_${name}_0`);
      expect(server.bodies.slice(sentBefore).join()).not.toContain(first);
      const hashes = new Set(
        (await deps.store.read.db.select().from(deps.store.read.tables.secrets)).map((secret) =>
          secret.hash.toString('hex'),
        ),
      );
      expect(await keys()).toHaveLength(LINES - 9);
      expect(hashes).toContain(deps.keyring.hash(`acme_${name}_${LINES - 1}`).toString('hex'));
      expect(report('refused').map(({ line, code }) => [line, code])).toEqual([
        [701, 'invalid_input'],
        [1501, 'name_taken'],
        [1701, 'invalid_input'],
        [2501, 'name_taken'],
        [2701, 'invalid_input'],
        [3501, 'name_taken'],
        [3701, 'invalid_input'],
        [4501, 'name_taken'],
        [4701, 'invalid_input'],
      ]);
      expect(existsSync(`${file}.progress`)).toBe(false);
      // Each batch is one event, and those that were sent twice changed nothing the second time.
      const { data } = await listEvents(deps, { after: 1, limit: 500 });
      expect(data.reduce((sum, event) => sum + Number(event.data['count']), 0)).toBe(LINES - 9);
      expect(Math.max(...server.bodies.map((body) => Buffer.byteLength(body)))).toBeLessThan(BODY_BYTES_MAX);

      const again = await run(argv);
      expect(again.totals).toMatchObject({ records: LINES, imported: 0, existing: LINES - 9, refused: 9 });
      expect(report('refused')).toHaveLength(9);
      expect(await eventTypes(deps)).toHaveLength(data.length);
    },
    PATIENCE_MS,
  );

  it(
    'answers 1 when the server goes away, and goes on when it is there again',
    async () => {
      const { server, write, run, keys } = await setup();
      const name = randomBytes(4).toString('hex');
      const file = write('keys.ndjson', ndjson(manyKeys(name)));
      const argv = [file, '--shape-prefix', `acme_${name}_`];
      server.beforeAnswer = () => {
        server.isAway = true;
      };
      const cut = await run(argv);
      expect(cut).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^network: /m) });
      expect(existsSync(`${file}.progress`)).toBe(true);
      server.isAway = false;
      server.beforeAnswer = () => {};
      const resumed = await run(argv);
      expect(resumed.err).toMatch(/^Going on after line \d+ /);
      expect(resumed.totals).toMatchObject({ records: LINES, refused: 9 });
      expect(resumed.totals.imported + resumed.totals.existing).toBe(LINES - 9);
      expect(await keys()).toHaveLength(LINES - 9);
    },
    PATIENCE_MS,
  );

  it('starts anew for another server, another shape, and a file that has changed', async () => {
    const { server, write, run } = await setup();
    const file = write('keys.ndjson', ndjson([{ hash: sha256('a'), subject: 'u', name: 'n' }]));
    const anew = /starting anew$/m;
    const cutOff = async (...argv: string[]) => {
      server.isAway = true;
      const { err } = await run([file, ...argv]);
      server.isAway = false;
      return err;
    };
    expect(await cutOff()).not.toMatch(anew);
    expect(await cutOff()).not.toMatch(anew);
    expect(await cutOff('--shape-length', '40')).toMatch(anew);
    expect(await cutOff('--shape-length', '40')).not.toMatch(anew);
    utimesSync(file, 1, 1);
    expect(await cutOff('--shape-length', '40')).toMatch(anew);
    const other = await setup();
    const ran = await run([file, '--shape-length', '40'], { url: other.server.url });
    expect(ran.err).toMatch(anew);
  });
});
