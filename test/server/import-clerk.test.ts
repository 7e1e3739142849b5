import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { describe, expect, it, vi } from 'vitest';
import { createCountersign } from '../../client/index.ts';
import { runCommand } from '../../server/cli.ts';
import { listEvents } from '../../server/domain/events.ts';
import { startChild } from '../support/children.ts';
import { type ClerkStandIn, serveClerk } from '../support/clerk.ts';
import { openTestDeps } from '../support/deps.ts';
import { listen, serveProcedures } from '../support/procedures.ts';

const SIZE = { machines: 30, users: 520, organizations: 40 };
const KEYS = SIZE.users + SIZE.organizations;

interface Situation {
  argv?: string[];
  stdin?: string;
  isTTY?: boolean;
  env?: Record<string, string>;
}

/** A server, what it was sent, and Clerk's API. */
async function setup(size = SIZE) {
  const deps = await openTestDeps('sqlite');
  const inner = await serveProcedures(deps);
  const bodies: string[] = [];
  const { url } = await listen((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString();
      bodies.push(body);
      const answer = await fetch(inner.url + request.url, {
        method: 'POST',
        headers: { authorization: `Bearer ${deps.adminKey}`, 'content-type': 'application/json' },
        body,
      });
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
    })();
  });
  const clerk = await serveClerk(size);
  async function run({ argv = [], stdin = '', isTTY = false, env = {} }: Situation = {}) {
    const ran = { out: '', err: '' };
    const code = await runCommand(['import', 'clerk', '--api-url', clerk.url, ...argv], {
      env: {
        COUNTERSIGN_URL: url,
        COUNTERSIGN_SECRET_KEY: deps.adminKey,
        CLERK_SECRET_KEY: clerk.secretKey,
        ...env,
      },
      stdin: Readable.from([stdin]),
      stdout: { write: (text) => (ran.out += text) },
      stderr: { isTTY, write: (text) => (ran.err += text) },
      version: '1.2.3',
    });
    return { code, ...ran, report: ran.out === '' ? undefined : JSON.parse(ran.out) };
  }
  return { deps, url: inner.url, outer: url, bodies, clerk, run };
}

const secretPaths = ({ asked }: ClerkStandIn) => asked.filter(({ path }) => /secret/.test(path));

const countsOf = ({ machines, machineScopes, apiKeys, subjects }: Record<string, unknown>) => ({
  machines,
  machineScopes,
  apiKeys,
  subjects,
});

const tally = (imported: number, existing = 0, skipped = 0) => ({ imported, existing, skipped, refused: 0 });

const WHOLE = {
  machines: tally(SIZE.machines),
  machineScopes: tally(SIZE.machines * 2),
  apiKeys: tally(KEYS, 0, SIZE.organizations),
  subjects: SIZE.machines + SIZE.users + SIZE.organizations,
};

describe('countersign import clerk', () => {
  it('imports what there is, and everything goes on with the secret that it has', async () => {
    const { deps, url, bodies, clerk, run } = await setup();
    const { code, report, err, out } = await run();
    expect({ code, ...countsOf(report) }).toEqual({ code: 0, ...WHOLE });

    const admin = createCountersign({ url, secretKey: deps.adminKey });
    const key = clerk.keys.find(({ name }) => name === 'organization key 7') as { id: string };
    expect(await admin.verify({ credential: clerk.secrets.get(key.id) ?? '' })).toMatchObject({
      valid: true,
      id: key.id,
      subject: `org_${'7'.padStart(27, '0')}`,
      name: 'organization key 7',
      scopes: ['invoices:read'],
      claims: { plan: 'pro' },
      expiresAt: Date.UTC(2030, 1, 1),
    });
    const [sender = '', receiver = '', , stranger = ''] = clerk.machineIds;
    const machineSecretKey = clerk.secrets.get(sender) ?? '';
    const minted = await createCountersign({ url, machineSecretKey }).m2mTokens.create();
    expect(minted).toMatchObject({ machineId: sender, expiresAt: minted.createdAt + 600_000 });
    const audienceOf = async (audience: string) =>
      (await admin.verify({ credential: minted.token ?? '', audience })).valid;
    expect([await audienceOf(receiver), await audienceOf(stranger)]).toEqual([true, false]);

    const secrets = [...clerk.secrets.values(), clerk.secretKey];
    const sent = bodies.join() + err + out;
    expect(secrets.filter((secret) => sent.includes(secret))).toEqual([]);
    const events = (await listEvents(deps, { after: 1, limit: 500 })).data;
    expect(events.filter(({ type }) => type === 'machine.imported')).toHaveLength(SIZE.machines);
    expect(events.filter(({ type }) => type === 'api_keys.imported').length).toBeLessThan(5);
  });

  it('asks for several at a time', async () => {
    const { clerk, run } = await setup({ machines: 4, users: 60, organizations: 0 });
    const held: ServerResponse[] = [];
    let asked = 0;
    clerk.intercept = (path, response) => {
      if (path !== '/api_keys') return false;
      asked++;
      // Nobody is answered before eight have asked, so that fewer at a time would wait for ever.
      if (held.push(response) === 8) for (const each of held.splice(0)) each.end('{"data":[]}');
      return true;
    };
    expect((await run()).code).toBe(0);
    expect([asked, held]).toEqual([64, []]);
  });

  it('asks for no more than a few at a time', async () => {
    const { clerk, run } = await setup({ machines: 0, users: 60, organizations: 0 });
    let open = 0;
    let most = 0;
    clerk.intercept = (_, response) => {
      most = Math.max(most, ++open);
      response.on('finish', () => open--);
      return false;
    };
    expect((await run()).code).toBe(0);
    expect(most).toBeLessThanOrEqual(8);
  });

  it('says what it would do, and fetches and sends nothing', async () => {
    const { bodies, clerk, run } = await setup();
    const { code, report } = await run({ argv: ['--dry-run'], env: { COUNTERSIGN_SECRET_KEY: '' } });
    expect({ code, ...countsOf(report) }).toEqual({ code: 0, ...WHOLE });
    expect(report).toMatchObject({ dryRun: true });
    expect(report.left[0]).toMatchObject({ kind: 'api_key', code: 'revoked' });
    expect([bodies, secretPaths(clerk)]).toEqual([[], []]);
  });

  it('changes nothing the second time, and fetches no secret again', async () => {
    const { deps, clerk, run } = await setup();
    await run();
    const [events, fetched] = [await listEvents(deps, { after: 0, limit: 500 }), secretPaths(clerk).length];
    const { code, report } = await run();
    expect({ code, ...countsOf(report) }).toEqual({
      code: 0,
      machines: tally(0, SIZE.machines),
      machineScopes: tally(0, SIZE.machines * 2),
      apiKeys: tally(0, KEYS, SIZE.organizations),
      subjects: WHOLE.subjects,
    });
    expect(await listEvents(deps, { after: 0, limit: 500 })).toEqual(events);
    expect(secretPaths(clerk)).toHaveLength(fetched);
  });

  it('goes on after it was killed, with nothing lost and nothing twice', async () => {
    const { deps, outer, clerk, run } = await setup();
    let killed = () => {};
    const held = new Promise<void>((resolve) => {
      killed = resolve;
    });
    clerk.intercept = (path) => {
      if (!/^\/api_keys\/.*secret/.test(path) || secretPaths(clerk).length < 330) return false;
      killed();
      return true;
    };
    const child = startChild(
      new URL('./import-clerk-process.ts', import.meta.url),
      outer,
      deps.adminKey,
      clerk.url,
      clerk.secretKey,
    );
    await held;
    const { db, tables } = deps.store.read;
    const count = async () => (await db.select({ id: tables.apiKeys.id }).from(tables.apiKeys)).length;
    await vi.waitFor(async () => expect(await count()).toBeGreaterThan(0), 10_000);
    await child.kill();
    const before = await count();
    expect(before).toBeLessThan(KEYS);

    clerk.intercept = () => false;
    const { code, report } = await run();
    expect({ code, apiKeys: report.apiKeys }).toEqual({
      code: 0,
      apiKeys: tally(KEYS - before, before, SIZE.organizations),
    });
    expect(await count()).toBe(KEYS);
  });

  it('waits as long as it is asked to, and tries again what failed', async () => {
    const { clerk, run } = await setup({ machines: 3, users: 20, organizations: 0 });
    let refusedAt = 0;
    let failures = 0;
    clerk.intercept = (path, response) => {
      if (path === '/v1/users' && failures++ < 2) {
        response.writeHead(failures === 1 ? 500 : 502).end('no JSON');
        return true;
      }
      if (path !== '/api_keys' || refusedAt > 0) return false;
      refusedAt = performance.now();
      response.writeHead(429, { 'retry-after': '1' }).end('{"errors":[]}');
      return true;
    };
    const { code, report, err } = await run();
    expect({ code, apiKeys: report.apiKeys }).toEqual({ code: 0, apiKeys: tally(20) });
    expect(err).toContain('Clerk asks to wait for 1 s');
    // What was on its way already may come a moment later.
    const early = clerk.asked.filter(({ at }) => at > refusedAt + 100 && at < refusedAt + 990);
    expect([early, failures]).toEqual([[], 3]);
    // Nearly all of it was still to come.
    expect(clerk.asked.filter(({ at }) => at >= refusedAt + 990).length).toBeGreaterThan(30);
  });

  it('gives up where Clerk refuses the key, and shows it nowhere', async () => {
    const { run } = await setup({ machines: 1, users: 1, organizations: 0 });
    const clerkSecretKey = `sk_test_${'wrong'.repeat(8)}`;
    const { code, err, out } = await run({ env: { CLERK_SECRET_KEY: clerkSecretKey } });
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain("Clerk refused '/v1/machines': 401 clerk_key_invalid");
    expect(err).not.toContain('wrong');
  });

  it('takes the key of Clerk from standard input, after ours, and from no argument', async () => {
    const { deps, clerk, run } = await setup({ machines: 1, users: 2, organizations: 0 });
    const both = await run({
      argv: ['--clerk-secret-key-stdin', '--secret-key-stdin'],
      stdin: `${deps.adminKey}\n${clerk.secretKey}\n`,
      env: { CLERK_SECRET_KEY: '', COUNTERSIGN_SECRET_KEY: '' },
    });
    expect(both).toMatchObject({ code: 0, report: { apiKeys: tally(2) } });
    expect(await run({ argv: [clerk.secretKey] })).toMatchObject({ code: 2, out: '' });
    expect(await run({ env: { CLERK_SECRET_KEY: '' } })).toMatchObject({
      code: 2,
      err: expect.stringContaining('Wanted CLERK_SECRET_KEY'),
    });
    expect(await run({ argv: ['--api-url', 'http://clerk.example.com'] })).toMatchObject({ code: 1 });
  });

  it('names machines apart that are called alike, and says so', async () => {
    const { deps, clerk, url, run } = await setup({ machines: 2, users: 0, organizations: 0 });
    const admin = createCountersign({ url, secretKey: deps.adminKey });
    await admin.machines.create({ name: 'machine 1' });
    const { code, report } = await run();
    expect({ code, machines: report.machines }).toEqual({ code: 0, machines: tally(2) });
    const id = clerk.machineIds[1] ?? '';
    expect(await admin.machines.get({ id })).toMatchObject({ name: 'machine 1 (000001)' });
    expect(report.left).toEqual([
      { kind: 'machine', id, code: 'renamed', message: "Imported as 'machine 1 (000001)'" },
    ]);
  });

  it('leaves what has a secret of another form, and imports no secret that is somebody else’s', async () => {
    const { clerk, run } = await setup({ machines: 3, users: 2, organizations: 0 });
    const [first = '', second = '', third = ''] = clerk.machineIds;
    clerk.secrets.set(first, 'whatever_0123456789');
    clerk.secrets.set(third, clerk.secrets.get(second) ?? '');
    const { code, report } = await run();
    expect(code).toBe(1);
    expect(report.machines).toEqual({ imported: 1, existing: 0, skipped: 1, refused: 1 });
    const codes = report.left.map(({ code }: { code: string }) => code).sort();
    expect(codes.filter((each: string) => each !== 'not_found')).toEqual(['already_exists', 'unknown_form']);
  });

  it('shows on a terminal how far it is, on one line', async () => {
    const { run } = await setup({ machines: 2, users: 10, organizations: 0 });
    const { err } = await run({ isTTY: true });
    expect(err).toContain('\r\u001b[K[####################] 2 machines, 12 subjects');
    expect(err).not.toContain('\n');
  });
});
