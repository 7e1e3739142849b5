import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { CONSENT_PATH, createHostApp } from '../../examples/host-app/application.ts';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type Opened,
  type OpenPage,
  PHONE,
} from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const whenDone = whenSuiteDone();
let server: RunningServer;
/** Of the application that users are handed to. */
let url: string;
/** Where the OAuth application takes them back to. */
let redirectUri: string;
let clientId: string;

beforeAll(async () => {
  execFileSync('npm', ['run', '--silent', 'build:host-app'], { cwd: ROOT });
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = await startServer(
    freshFolder(whenDone),
    {
      COUNTERSIGN_LOG_LEVEL: 'warn',
      COUNTERSIGN_SIGN_IN: 'handoff',
      COUNTERSIGN_HANDOFF_URL: `${url}${CONSENT_PATH}`,
    },
    { whenDone },
  );
  const newKey = async (role: string) =>
    (await server.call('secretKeys.create', { name: role, role })).body.result.data.secret as string;
  const keys = { interactionKey: await newKey('interaction'), verifyKey: await newKey('verify') };
  const application: Server = createHostApp({ url: server.url, ...keys }).listen(port, '127.0.0.1');
  const callback = createServer((_request, response) => response.end('back')).listen(0, '127.0.0.1');
  for (const each of [application, callback]) {
    whenDone(async () => {
      each.close();
      each.closeAllConnections();
    });
    if (!each.listening) await once(each, 'listening');
  }
  redirectUri = `http://127.0.0.1:${(callback.address() as { port: number }).port}/callback`;
  await server.call('oauthScopes.create', { name: 'invoices:read', description: 'Read your invoices' });
  const made = await server.call('oauthApplications.create', {
    name: 'Ledger',
    public: true,
    redirectUris: [redirectUri],
    scopes: ['openid', 'offline_access', 'invoices:read'],
  });
  clientId = made.body.result.data.clientId;
}, 400_000);

interface Request {
  url: string;
  verifier: string;
}

function request(): Request {
  const verifier = randomBytes(32).toString('base64url');
  const asked = new URLSearchParams({
    response_type: 'code',
    client_id: clientId,
    redirect_uri: redirectUri,
    scope: 'invoices:read',
    state: 'a state of eight or more',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  return { url: `${server.url}/oauth/authorize?${asked}`, verifier };
}

/** Signs in by the application's own login, on whichever page of it. */
async function signIn({ page }: Opened, name: string) {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(`${name}'s password`);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/** Begins as the OAuth application does, and signs in where the server hands off to. */
async function begin(open: OpenPage, name: string, options: Parameters<OpenPage>[0] = {}) {
  const opened = await open(options);
  const asked = request();
  await opened.page.goto(asked.url);
  await signIn(opened, name);
  const consent = opened.page.getByRole('region', { name: 'Let “Ledger” act for you?' });
  await consent.waitFor();
  return { ...opened, ...asked, consent };
}

/** What the OAuth application is told in the address, once the browser is back. */
async function cameBack({ page }: Pick<Opened, 'page'>): Promise<URLSearchParams> {
  await page.waitForURL(/\/callback\?/);
  return new URL(page.url()).searchParams;
}

async function redeem(code: string, verifier: string) {
  const response = await fetch(`${server.url}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: clientId,
      redirect_uri: redirectUri,
      code,
      code_verifier: verifier,
    }),
  });
  return (await response.json()) as { access_token: string };
}

const verify = async (credential: string) =>
  (await server.call('credentials.verify', { credential })).body.result.data;

const invoicesWith = async (value: string) => {
  const response = await fetch(`${url}/api/invoices`, { headers: { authorization: `Bearer ${value}` } });
  await response.text();
  return response.status;
};

describeInBrowser('consent in an application that users are handed to', (open) => {
  it('lets an OAuth application act for a user and their organization, until they withdraw it', async () => {
    const opened = await begin(open, 'alice');
    const { page, consent, verifier, complaints } = opened;
    await consent.getByText('Read your invoices').waitFor();
    await consent.getByText(`Either way you go on to ${new URL(redirectUri).host}`).waitFor();
    await consent.getByText('You are signed in as alice').waitFor();
    await consent.getByLabel('For').selectOption({ label: 'Acme' });
    await consent.getByRole('button', { name: 'Allow' }).click();
    const answer = await cameBack(opened);
    expect(answer.get('state')).toBe('a state of eight or more');
    const { access_token: token } = await redeem(answer.get('code') ?? '', verifier);
    expect(await verify(token)).toMatchObject({
      valid: true,
      subject: 'user_alice',
      organizationId: 'org_acme',
      scopes: ['invoices:read'],
    });
    expect(await invoicesWith(token)).toBe(200);

    await page.goto(url);
    const connected = page.getByRole('region', { name: 'Connected applications' });
    const ledger = connected.getByRole('listitem').filter({ hasText: 'Ledger' }).first();
    await ledger.getByText('For org_acme').waitFor();
    await ledger.getByText('Read your invoices').waitFor();
    await ledger.getByRole('button', { name: 'Withdraw Ledger' }).click();
    await connected.getByRole('dialog').getByRole('button', { name: 'Withdraw' }).click();
    await connected.getByText('No application acts for you').waitFor();
    expect(await verify(token)).toMatchObject({ valid: false, reason: 'revoked' });
    expect(await invoicesWith(token)).toBe(401);
    expect(complaints).toEqual([]);
  });

  it('is asked each time, of whoever is signed in then, and who signs out is signed out of the server', async () => {
    const opened = await begin(open, 'alice');
    const { page, consent } = opened;
    await consent.getByRole('button', { name: 'Allow' }).click();
    await cameBack(opened);
    await page.goto(`${server.url}/oauth/applications`);
    await page.getByText('Signed in as alice').waitFor();
    await page.goto(url);
    expect(await page.evaluate("fetch('/logout', { method: 'POST' }).then(({ status }) => status)")).toBe(
      204,
    );
    await page.goto(`${server.url}/oauth/applications`);
    await page.waitForURL(`${url}${CONSENT_PATH}?**`);
    await page.goto(request().url);
    await signIn(opened, 'bob');
    await consent.getByText('You are signed in as bob').waitFor();
  });

  it('is denied, and the OAuth application is told so', async () => {
    const opened = await begin(open, 'bob');
    await opened.consent.getByRole('button', { name: 'Deny' }).click();
    const answer = await cameBack(opened);
    expect([answer.get('error'), answer.get('code')]).toEqual(['access_denied', null]);
  });

  it('is worth nothing in another browser than the one that began', async () => {
    const attacker = await open();
    await attacker.page.goto(request().url);
    const handedOff = attacker.page.url();
    const victim = await open();
    await victim.page.goto(handedOff);
    await signIn(victim, 'alice');
    await victim.page.getByRole('button', { name: 'Allow' }).click();
    await victim.page.waitForURL(`${server.url}/oauth/**`);
    expect(victim.page.url()).not.toContain('code=');
    const seen = [...victim.requests, ...attacker.requests];
    expect(seen.filter((each) => each.startsWith(redirectUri))).toEqual([]);
  });

  it('says so where the request is over', async () => {
    const opened = await open();
    await opened.page.goto(`${url}${CONSENT_PATH}?interaction=int_${'0'.repeat(27)}`);
    await signIn(opened, 'alice');
    await opened.page.getByRole('alert').getByText('This request is over').waitFor();
    await expectAccessible(opened.page);
  });

  it('names no organization but those of the user, whatever its page sends', async () => {
    const { page, url: _, ...rest } = await begin(open, 'bob');
    const id = new URL(page.url()).searchParams.get('interaction');
    const send = (body: object, headers: object) =>
      page.evaluate(
        `fetch('/oauth-consent/oauthConsent.allow', { method: 'POST', headers: ${JSON.stringify({
          'content-type': 'application/json',
          ...headers,
        })}, body: ${JSON.stringify(JSON.stringify(body))} }).then(({ status }) => status)`,
      );
    const ours = { 'x-countersign': 'panel' };
    const scopes = ['invoices:read'];
    expect(await send({ id, scopes, organizationId: 'org_other' }, ours)).toBe(403);
    expect(await send({ id, scopes, organizationId: 'org_acme' }, {})).toBe(403);
    expect(await send({ id: 'int_short', scopes }, ours)).toBe(404);
    expect(await send({ id, scopes: ['openid', 'offline_access', 'invoices:write'] }, ours)).toBe(400);
    expect(rest.complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be given by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      for (const viewport of [{ width: 1280, height: 900 }, PHONE]) {
        const { page, complaints } = await begin(open, 'alice', { colorScheme, viewport });
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        expect(complaints).toEqual([]);
      }
    },
  );
});
