import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { inviteUser, inviteUserInput } from '../../../server/domain/user-invitations.ts';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type Opened,
  PHONE,
} from '../../support/browser.ts';
import { callerWith, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { listen } from '../../support/procedures.ts';
import { newPkce, serveOauth } from '../../support/user-agent.ts';
import { newUser, PASSWORD } from '../../support/users.ts';

/** An application at an origin of its own, which says what it was sent. */
async function open(more: Record<string, unknown> = {}) {
  const opened = await openTestDeps('sqlite');
  const app = await listen((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end(`<!doctype html><title>Notes</title><h1>Sent back</h1><p>${request.url?.split('?')[0]}</p>`);
  });
  const { row: application } = await newApplication(opened, {
    redirectUris: [`${app.url}/callback`],
    ...more,
  });
  const { deps, url } = await serveOauth(opened);
  const target = new URL('/oauth/authorize', url);
  const asked = {
    client_id: application.client_id,
    redirect_uri: `${app.url}/callback`,
    response_type: 'code',
    scope: 'openid offline_access notes:read',
    state: 'xyz',
    code_challenge: newPkce().challenge,
    code_challenge_method: 'S256',
  };
  for (const [name, value] of Object.entries(asked)) target.searchParams.set(name, value);
  return { deps: deps as TestDeps, url, app: app.url, ask: target.href };
}

async function signIn({ page }: Opened, password = PASSWORD) {
  await page.getByLabel('Name').fill('ada');
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

describeInBrowser('pages for users', (openPage) => {
  it('lead from an application through signing in and consent back to it, and to taking it all back, without script', {
    timeout: 120_000,
  }, async () => {
    const { deps, url, app, ask } = await open();
    await newUser(deps, 'ada', { withPassword: true });
    const opened = await openPage({ javaScriptEnabled: false });
    const { page, requests, complaints } = opened;
    await page.goto(ask);
    await signIn(opened, 'wrong password');
    await page.getByRole('alert').getByText('The name or the password is wrong').waitFor();
    await signIn(opened);
    await page.getByRole('heading', { name: 'Allow Notes?' }).waitFor();
    await page.getByRole('button', { name: 'Allow', exact: true }).click();
    // Chromium holds redirects of a form against its page's policy: it was let go to where the application is.
    await page.getByRole('heading', { name: 'Sent back' }).waitFor();
    const back = new URL(page.url());
    expect(back.origin).toBe(app);
    expect(Object.fromEntries(back.searchParams)).toEqual({
      code: expect.stringMatching(/^oac_/),
      state: 'xyz',
      iss: url,
    });
    await page.goto(`${url}/oauth/applications`);
    await page.getByRole('heading', { name: 'Notes' }).waitFor();
    await page.getByRole('button', { name: 'Take it all back' }).click();
    await page.getByText('You have allowed no application anything').waitFor();
    await page.getByRole('link', { name: 'Sign out' }).click();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    expect(complaints).toEqual([]);
    expect(requests.filter((each) => !each.startsWith(url) && !each.startsWith(app))).toEqual([]);
  });

  it('let go to an application that leads on to another origin, and to one on the IPv6 loopback, without script', {
    timeout: 120_000,
  }, async () => {
    const end = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<!doctype html><title>Notes</title><h1>At the end</h1>');
    });
    const callback = createServer((_request, response) => {
      response.writeHead(302, { location: `${end.url}/done` }).end();
    });
    await new Promise<void>((resolve) => callback.listen(0, '::1', resolve));
    onTestFinished(() => void callback.close());
    const { port } = callback.address() as AddressInfo;
    const { deps, ask } = await open({ redirectUris: [`http://[::1]:${port}/callback`] });
    await newUser(deps, 'ada', { withPassword: true });
    const target = new URL(ask);
    target.searchParams.set('redirect_uri', `http://[::1]:${port}/callback`);
    for (const button of ['Allow', 'Do not allow', 'Cancel']) {
      const opened = await openPage({ javaScriptEnabled: false });
      await opened.page.goto(target.href);
      if (button !== 'Cancel') await signIn(opened);
      await opened.page.getByRole('button', { name: button, exact: true }).click();
      await opened.page.getByRole('heading', { name: 'At the end' }).waitFor();
      expect(opened.complaints).toEqual([]);
    }
  });

  for (const mode of ['query', 'form_post'])
    it(`in a popup lead back to the page that opened it, by ${mode}`, { timeout: 120_000 }, async () => {
      const { deps, ask } = await open();
      await newUser(deps, 'ada', { withPassword: true });
      const app = await listen((request, response) => {
        response.writeHead(200, { 'content-type': 'text/html' });
        const script = request.url?.startsWith('/callback')
          ? 'opener.postMessage("back", "*")'
          : `addEventListener("message", ({ data }) => (document.title = data)); open(${JSON.stringify(target.href)})`;
        response.end(`<!doctype html><title>Notes</title><script>${script}</script>`);
      });
      const target = new URL(ask);
      const { row: application } = await newApplication(deps, { redirectUris: [`${app.url}/callback`] });
      target.searchParams.set('client_id', application.client_id);
      target.searchParams.set('redirect_uri', `${app.url}/callback`);
      target.searchParams.set('response_mode', mode);
      const opened = await openPage();
      const whenOpened = opened.page.waitForEvent('popup');
      await opened.page.goto(app.url);
      const popup = { ...opened, page: await whenOpened };
      await signIn(popup);
      await popup.page.getByRole('button', { name: 'Allow', exact: true }).click({ noWaitAfter: true });
      await expect.poll(() => opened.page.title(), { timeout: 20_000 }).toBe('back');
      expect(opened.complaints).toEqual([]);
    });

  it('make an account from an invitation, without script', { timeout: 120_000 }, async () => {
    const { deps } = await open();
    const input = inviteUserInput.parse({ email: 'ada@example.com', name: 'Ada' });
    const { link = '' } = await inviteUser(deps, callerWith('admin'), input);
    const { page, complaints } = await openPage({ javaScriptEnabled: false });
    await page.goto(link);
    await page.getByLabel('Name to sign in with').fill('ada');
    await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await page.getByLabel('The same password again').fill(PASSWORD);
    await page.getByRole('button', { name: 'Make the account' }).click();
    await page.getByRole('heading', { name: 'Done' }).waitFor();
    await page.getByRole('link', { name: 'sign in now' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(complaints).toEqual([]);
  });

  for (const [look, options] of [
    ['in light, on a desk', { colorScheme: 'light' }],
    ['in the dark, on a phone', { colorScheme: 'dark', viewport: PHONE }],
  ] as const)
    it(`are accessible ${look}`, { timeout: 120_000 }, async () => {
      const { deps, url, app, ask } = await open();
      await newUser(deps, 'ada', { withPassword: true });
      const opened = await openPage(options);
      const { page } = opened;
      const judge = async (heading: string) => {
        await page.getByRole('heading', { name: heading, level: 1 }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
      };
      await page.goto(ask);
      await judge('Sign in');
      await signIn(opened, 'wrong password');
      await page.getByRole('alert').waitFor();
      await judge('Sign in');
      await signIn(opened);
      await judge('Allow Notes?');
      // Without content the browser stays where it is.
      await page.route(`${app}/**`, (route) => route.fulfill({ status: 204 }));
      await page.getByRole('button', { name: 'Allow', exact: true }).click();
      await judge(`Going back to ${new URL(app).host}`);
      await page.unroute(`${app}/**`);
      await page.getByRole('link', { name: 'continue' }).click();
      await page.getByRole('heading', { name: 'Sent back' }).waitFor();
      await page.goto(`${url}/oauth/applications`);
      await judge('Applications you have allowed');
      await page.goto(`${url}/oauth/sign-out`);
      await judge('Sign out?');
      const { link = '' } = await inviteUser(
        deps,
        callerWith('admin'),
        inviteUserInput.parse({ name: 'Bob' }),
      );
      await page.goto(link);
      await judge('Your account');
      await page.goto(`${url}/oauth/invitation?value=nothing`);
      await judge('This cannot go on');
    });

  it('a form is filled in and sent with the keyboard alone, and what is wrong is read with its field', async () => {
    const { deps, url } = await open();
    await newUser(deps, 'ada', { withPassword: true });
    const { page } = await openPage();
    await page.goto(`${url}/oauth/sign-in`);
    await page.keyboard.press('Tab');
    await page.keyboard.type('ada');
    await page.keyboard.press('Tab');
    await page.keyboard.type('wrong password');
    await page.keyboard.press('Enter');
    await page.getByRole('alert').waitFor();
    const described = await page.getByLabel('Password').getAttribute('aria-describedby');
    expect(await page.locator(`#${described}`).textContent()).toContain('The name or the password is wrong');
    expect(await page.getByLabel('Name').inputValue()).toBe('ada');
    expect(await page.getByLabel('Password').inputValue()).toBe('');
  });

  it('no other page shows them in a frame', async () => {
    const { url } = await open();
    const thief = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end(`<!doctype html><title>x</title><iframe src="${url}/oauth/sign-in"></iframe>`);
    });
    const { page } = await openPage();
    await page.goto(thief.url);
    const frame = page.frames().find((each) => each !== page.mainFrame());
    expect(await frame?.locator('input').count()).toBe(0);
  });
});
