import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { LANGUAGES, type Use } from '../../client/console/oauth-application-examples.ts';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type OpenPage,
  PHONE,
} from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { foreignOf, signInAt } from './sign-in.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

let server: RunningServer;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
});

interface Created {
  id: string;
  clientId: string;
  secret: string;
}

/** One pixel. */
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

const REDIRECT_URI = 'https://app.example/callback';

const create = async (name: string, more: object = {}) =>
  (await server.call('oauthApplications.create', { name, redirectUris: [REDIRECT_URI], ...more })).body.result
    .data as Created;

const read = async (id: string) => (await server.call('oauthApplications.get', { id })).body.result.data;

/** Asks for a token as the application itself; answers the status, and what was answered. */
async function ask({ clientId, secret }: Pick<Created, 'clientId' | 'secret'>) {
  const response = await fetch(`${server.url}/oauth/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  });
  return { status: response.status, body: (await response.json()) as { access_token: string } };
}

/** Whether a token is accepted now, as its application is told (RFC 7662). */
async function isActive({ clientId, secret }: Pick<Created, 'clientId' | 'secret'>, token: string) {
  const response = await fetch(`${server.url}/oauth/introspect`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}` },
    body: new URLSearchParams({ token }),
  });
  return ((await response.json()) as { active: boolean }).active;
}

async function openAt(open: OpenPage, path: string, options = {}) {
  const opened = await open(options);
  await signInAt(opened, server, path);
  return opened;
}

describeInBrowser('OAuth applications', (open) => {
  it('are created with a client secret that is shown once, and with that a token is got', async () => {
    await server.call('oauthScopes.create', { name: 'invoices:read', description: 'Read your invoices' });
    const opened = await openAt(open, '/oauth-applications');
    const { page } = opened;
    await page.getByText('No applications yet').waitFor();
    await page.getByRole('button', { name: 'Create application' }).click();
    const form = page.getByRole('dialog', { name: 'Create application' });
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('ledger sync');
    await form.getByLabel('Home page').fill('https://app.example');
    await form.getByLabel('Redirect URIs', { exact: true }).fill(REDIRECT_URI);
    await form.getByLabel('Redirect URIs', { exact: true }).press('Enter');
    await form.getByLabel('Scopes', { exact: true }).fill('invoices:read');
    await form.getByLabel('Scopes', { exact: true }).press('Enter');
    await form.getByLabel('It acts for itself (client credentials)').check();
    await form.getByRole('button', { name: 'Tokens' }).click();
    await form.getByLabel('Format of access tokens').selectOption('jwt');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    expect(secret).toMatch(/^oas_\w{49}$/);
    await page.keyboard.press('Escape');
    await page.getByTestId('secret').waitFor();
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('link', { name: 'ledger sync' }).click();
    await page.getByRole('heading', { name: 'ledger sync' }).waitFor();
    expect(await page.content()).not.toContain(secret);

    const clientId = page.url().split('/').at(-1) ?? '';
    expect(await read(clientId)).toMatchObject({
      clientUri: 'https://app.example',
      public: false,
      redirectUris: [REDIRECT_URI],
      accessTokenFormat: 'jwt',
      grantTypes: ['authorization_code', 'refresh_token', 'client_credentials'],
      scopes: ['openid', 'profile', 'email', 'offline_access', 'invoices:read'],
    });
    const { status, body } = await ask({ clientId, secret });
    expect([status, body.access_token.split('.').length]).toEqual([200, 3]);
    expect([opened.complaints, foreignOf(opened, server)]).toEqual([[], []]);
  });

  it('that are public have no secret, PKCE whatever is entered, and act for nobody by themselves', async () => {
    const { page, complaints } = await openAt(open, '/oauth-applications');
    await page.getByRole('button', { name: 'Create application' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('phone app');
    await form.getByLabel('It acts for itself (client credentials)').check();
    await form.getByLabel('Kind').selectOption('public');
    expect(await form.getByLabel('It acts for itself (client credentials)').isDisabled()).toBe(true);
    const submit = form.getByRole('button', { name: 'Create', exact: true });
    expect(await submit.isDisabled()).toBe(true);
    await form.getByLabel('Redirect URIs', { exact: true }).fill('com.example.app:/callback');
    await form.getByLabel('Redirect URIs', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Consent and proof' }).click();
    expect(await form.getByLabel('PKCE is required').isDisabled()).toBe(true);
    await submit.click();
    await page.getByRole('link', { name: 'phone app' }).click();
    await page.getByText('public', { exact: true }).waitFor();
    expect(await page.getByRole('button', { name: 'Rotate secret' }).count()).toBe(0);
    expect(await read(page.url().split('/').at(-1) ?? '')).toMatchObject({
      public: true,
      pkceRequired: true,
      grantTypes: ['authorization_code', 'refresh_token'],
    });
    expect(complaints).toEqual([]);
  });

  it('say what the server refuses of them, and keep what was entered', async () => {
    const { page } = await openAt(open, '/oauth-applications');
    await page.getByRole('button', { name: 'Create application' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('refused');
    await form.getByLabel('Redirect URIs', { exact: true }).fill('http://app.example/callback');
    await form.getByLabel('Redirect URIs', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    await form.getByRole('alert').getByText('invalid_input').waitFor();
    expect(await form.getByRole('textbox', { name: 'Name', exact: true }).inputValue()).toBe('refused');
  });

  it('are found by a part of their name and by their id, and put in order', async () => {
    const [alpha] = [await create('alpha search'), await create('Beta Search')];
    const { page } = await openAt(open, '/oauth-applications');
    const names = () => page.getByRole('row').locator('a').allTextContents();
    await page.getByLabel('Search').fill('SEARCH');
    await expect.poll(names).toEqual(['Beta Search', 'alpha search']);
    await page.getByLabel('Order').selectOption('Oldest');
    await expect.poll(names).toEqual(['alpha search', 'Beta Search']);
    await page.getByLabel('Search').fill(alpha.id);
    await expect.poll(names).toEqual(['alpha search']);
    await page.getByLabel('Search').fill('nobody is called so');
    await page.getByText('No application is called so').waitFor();
  });

  it('are edited and disabled: what was entered is what they are', async () => {
    const application = await create('changed', { grantTypes: ['client_credentials'], redirectUris: [] });
    const { page, complaints } = await openAt(open, `/oauth-applications/${application.id}`);
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('changed twice');
    await form.getByRole('button', { name: 'Tokens' }).click();
    await form.getByLabel('Unit of lifetime of an access token').selectOption('minutes');
    await form.getByLabel('Lifetime of an access token', { exact: true }).fill('5');
    await form.getByLabel('Resources', { exact: true }).fill('https://api.example');
    await form.getByLabel('Resources', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('heading', { name: 'changed twice' }).waitFor();
    expect(await read(application.id)).toMatchObject({
      accessTokenTtlSeconds: 300,
      audiences: ['https://api.example'],
      grantTypes: ['client_credentials'],
    });
    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('button', { name: 'Enable' }).waitFor();
    expect((await ask(application)).status).toBe(401);
    await page.getByRole('button', { name: 'Enable' }).click();
    await page.getByRole('button', { name: 'Disable' }).waitFor();
    expect((await ask(application)).status).toBe(200);
    expect(complaints).toEqual([]);
  });

  it('get a new secret while the old one is accepted, until that is ended', async () => {
    const application = await create('rotated', { grantTypes: ['client_credentials'], redirectUris: [] });
    const { page, complaints } = await openAt(open, `/oauth-applications/${application.id}`);
    await page.getByRole('button', { name: 'Rotate secret' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate', exact: true }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByTestId('overlap').waitFor();
    expect([(await ask(application)).status, (await ask({ ...application, secret })).status]).toEqual([
      200, 200,
    ]);
    await page.getByRole('button', { name: 'End the old value now' }).click();
    await page.getByTestId('overlap').waitFor({ state: 'detached' });
    expect([(await ask(application)).status, (await ask({ ...application, secret })).status]).toEqual([
      401, 200,
    ]);
    expect(complaints).toEqual([]);
  });

  it('whose secret somebody else may have lose it and all tokens at once, when their name was typed', async () => {
    const application = await create('leaked', { grantTypes: ['client_credentials'], redirectUris: [] });
    const { body } = await ask(application);
    const { page, complaints } = await openAt(open, `/oauth-applications/${application.id}`);
    await page.getByRole('button', { name: 'Rotate secret' }).click();
    const form = page.getByRole('dialog');
    await form.getByLabel('Somebody else may have it').check();
    const submit = form.getByRole('button', { name: 'Replace at once' });
    expect(await submit.isDisabled()).toBe(true);
    await expectAccessible(page);
    await form.getByLabel('Type “leaked” to confirm').fill('leaked');
    expect(await isActive(application, body.access_token)).toBe(true);
    await submit.click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    expect((await ask(application)).status).toBe(401);
    expect(await isActive({ ...application, secret }, body.access_token)).toBe(false);
    expect(complaints).toEqual([]);
  });

  it('have all their tokens revoked, and are deleted, once their name was typed', async () => {
    const application = await create('ended', { grantTypes: ['client_credentials'], redirectUris: [] });
    const { body } = await ask(application);
    const { page, complaints } = await openAt(open, `/oauth-applications/${application.id}`);
    await page.getByRole('button', { name: 'Revoke all tokens' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox').fill('ended');
    expect(await isActive(application, body.access_token)).toBe(true);
    await dialog.getByRole('button', { name: 'Revoke all tokens' }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(await isActive(application, body.access_token)).toBe(false);
    expect((await ask(application)).status).toBe(200);
    await page.getByRole('button', { name: 'Delete' }).click();
    await dialog.getByRole('textbox').fill('ended');
    await dialog.getByRole('button', { name: 'Delete application' }).click();
    await page.waitForURL(/\/console\/oauth-applications$/);
    expect((await server.call('oauthApplications.get', { id: application.id })).body.error.data.code).toBe(
      'not_found',
    );
    expect((await ask(application)).status).toBe(401);
    expect(complaints).toEqual([]);
  });

  it('have scopes that are created, described anew and deleted; the built-in ones stay', async () => {
    const { page, complaints } = await openAt(open, '/oauth-applications/scopes');
    const openid = page.getByRole('row', { name: /^openid/ });
    await openid.waitFor();
    expect(await openid.getByRole('button').count()).toBe(0);
    await page.getByRole('button', { name: 'Create scope' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('invoices:write');
    await form.getByLabel('What users read').fill('Write your invoices');
    await form.getByLabel('Resource').fill('https://api.example');
    await form.getByRole('button', { name: 'Create' }).click();
    await page.getByRole('row', { name: /invoices:write.*Write your invoices.*api\.example/ }).waitFor();
    await page.getByRole('button', { name: 'Edit invoices:write' }).click();
    await form.getByLabel('What users read').fill('Write and send your invoices');
    await form.getByLabel('Advertised').uncheck({ force: true });
    await form.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('row', { name: /invoices:write.*and send.*no/ }).waitFor();
    await page.getByRole('button', { name: 'Delete invoices:write' }).click();
    await form.getByRole('textbox').fill('invoices:write');
    await form.getByRole('button', { name: 'Delete scope' }).click();
    await page.getByRole('row', { name: /invoices:write/ }).waitFor({ state: 'detached' });
    expect(complaints).toEqual([]);
  });

  it('may register by a token that is shown once, when the settings say so', async () => {
    const { page, complaints } = await openAt(open, '/oauth-applications/settings');
    await page.getByLabel('Who may register an application (RFC 7591)').selectOption('initial_access_token');
    await page.getByRole('button', { name: 'Save' }).click();
    await expect
      .poll(async () => (await server.call('oauthSettings.get')).body.result.data.registration)
      .toBe('initial_access_token');
    await page.getByRole('button', { name: 'Create token' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('for the fleet');
    await form.getByLabel('Applications that may be registered with it').fill('3');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    expect(await page.getByTestId('secret').textContent()).toMatch(/^iat_\w{49}$/);
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('row', { name: /for the fleet.*3/ }).waitFor();
    await page.getByRole('button', { name: 'Revoke for the fleet' }).click();
    await form.getByRole('textbox').fill('for the fleet');
    await form.getByRole('button', { name: 'Revoke token' }).click();
    await page.getByText('No initial access tokens').waitFor();
    expect(complaints).toEqual([]);
  });

  it('are changed one by one, and given back to what holds where nothing is set', async () => {
    const { page, complaints } = await openAt(open, '/oauth-applications/settings');
    const choose = async (label: string, value: string) => {
      const saving = page.waitForRequest(/oauthSettings\.update/);
      await page.getByLabel(label).selectOption(value);
      await page.getByRole('button', { name: 'Save' }).click();
      const request = await saving;
      await request.response();
      return request.postData();
    };
    const read = async () => (await server.call('oauthSettings.get')).body.result.data;
    await server.call('oauthSettings.update', { registration: null });
    await page.reload();
    expect(await choose('Format of access tokens', 'jwt')).toMatch(
      /^\{("0":\{)?"accessTokenFormat":"jwt"\}+$/,
    );
    expect(await read()).toMatchObject({ accessTokenFormat: 'jwt', registration: 'off' });
    await page.getByRole('button', { name: 'Save' }).and(page.locator(':disabled')).waitFor();
    await page.goto(`${server.url}/console/oauth-applications`);
    await page.getByRole('button', { name: 'Create application' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('as the settings say');
    await form.getByLabel('Redirect URIs', { exact: true }).fill(REDIRECT_URI);
    await form.getByLabel('Redirect URIs', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    await page.getByTestId('secret').waitFor();
    const { body } = await server.call('oauthApplications.list', { query: 'as the settings say' });
    expect(body.result.data.data).toMatchObject([{ accessTokenFormat: 'jwt' }]);
    await page.goto(`${server.url}/console/oauth-applications/settings`);
    expect(await choose('Format of access tokens', '')).toContain('"accessTokenFormat":null');
    expect(await read()).toMatchObject({ accessTokenFormat: 'opaque' });
    expect(complaints).toEqual([]);
  });

  it('are given a logo, which is shown and taken away; what is no image is refused in words', async () => {
    const { id } = await create('with a logo');
    const { page, complaints } = await openAt(open, `/oauth-applications/${id}`);
    const upload = async (name: string, mimeType: string, buffer: Buffer) =>
      page.locator('input[type=file]').setInputFiles({ name, mimeType, buffer });
    await page.getByText('None: users see its name alone').waitFor();
    await upload('logo.png', 'image/png', Buffer.from('<svg onload="alert(1)"/>'));
    await page.getByRole('alert').getByText('invalid_input').waitFor();
    await upload('logo.png', 'image/png', PNG);
    const logo = page.getByRole('img', { name: 'Logo of with a logo' });
    await logo.waitFor();
    await expect.poll(() => page.evaluate('document.querySelector("img")?.naturalWidth')).toBe(1);
    await page.getByRole('button', { name: 'Take it away' }).click();
    await page.getByText('None: users see its name alone').waitFor();
    expect(complaints).toEqual([]);
  });

  it('are seen by a read key, which is offered no change', async () => {
    const { id } = await create('only seen');
    const { body } = await server.call('secretKeys.create', { name: 'reader', role: 'read' });
    const opened = await open();
    await signInAt(opened, { ...server, adminKey: body.result.data.secret }, `/oauth-applications/${id}`);
    const { page } = opened;
    await page.getByRole('heading', { name: 'only seen' }).waitFor();
    await page.getByRole('heading', { name: 'Show me the code' }).waitFor();
    for (const name of ['Edit', 'Rotate secret', 'Disable', 'Revoke all tokens', 'Delete'])
      expect([name, await page.getByRole('button', { name, exact: true }).count()]).toEqual([name, 0]);
    await page.getByRole('link', { name: 'All applications' }).click();
    await page.getByRole('link', { name: 'only seen' }).waitFor();
    expect(await page.getByRole('button', { name: 'Create application' }).count()).toBe(0);
    expect(opened.complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 120_000 },
    async (colorScheme) => {
      const { id } = await create(`seen in ${colorScheme}`);
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const opened = await openAt(open, '/oauth-applications', { colorScheme, viewport });
        const { page } = opened;
        await page.getByRole('link', { name: `seen in ${colorScheme}` }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.getByRole('button', { name: 'Create application' }).click();
        const form = page.getByRole('dialog');
        await form.getByRole('button', { name: 'Consent and proof' }).click();
        await form.getByLabel('PKCE is required').waitFor();
        await expectAccessible(page);
        const pages = {
          scopes: 'What users read',
          settings: 'No initial access tokens',
          [id]: 'Show me the code',
        };
        for (const [path, text] of Object.entries(pages)) {
          await page.goto(`${server.url}/console/oauth-applications/${path}`);
          await page.getByText(text).waitFor();
          await expectAccessible(page);
          await expectNoSidewaysScrolling(page);
        }
        expect(opened.complaints).toEqual([]);
      }
    },
  );
});

describe('the code that is shown', () => {
  const run = promisify(execFile);

  async function newUse(): Promise<{ application: Created; use: Use; env: NodeJS.ProcessEnv }> {
    const scopes = ['reports:read'];
    await server.call('oauthScopes.create', { name: 'reports:read', description: 'Read reports' });
    const application = await create('runs', {
      grantTypes: ['client_credentials'],
      redirectUris: [],
      scopes,
    });
    const { clientId, secret } = application;
    return {
      application,
      use: { url: server.url, clientId, public: false, redirectUri: REDIRECT_URI, scopes },
      env: {
        PATH: process.env['PATH'],
        OAUTH_CLIENT_SECRET: secret,
        COUNTERSIGN_SECRET_KEY: server.adminKey,
      },
    };
  }

  it('gets a token by openid-client', async () => {
    const { application, use, env } = await newUse();
    // Where what it imports is found.
    const folder = join(ROOT, 'dist', `.example-${process.pid}`);
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'example.mts'), LANGUAGES[0].forItself(use));
    const { stdout } = await run('node', ['--import', 'tsx', join(folder, 'example.mts')], {
      cwd: ROOT,
      env,
    });
    expect(await isActive(application, stdout.trim())).toBe(true);
  });

  it('gets a token by curl', async () => {
    const { application, use, env } = await newUse();
    const { stdout } = await run('sh', ['-c', LANGUAGES[1].forItself(use)], { env });
    expect(await isActive(application, JSON.parse(stdout).access_token)).toBe(true);
  });
});
