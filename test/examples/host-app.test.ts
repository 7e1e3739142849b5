import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { createHostApp } from '../../examples/host-app/application.ts';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type OpenPage,
  PHONE,
} from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const whenDone = whenSuiteDone();
let server: RunningServer;
let url: string;

beforeAll(async () => {
  execFileSync('npm', ['run', '--silent', 'build:host-app'], { cwd: ROOT });
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
  const newKey = async (role: string) =>
    (await server.call('secretKeys.create', { name: role, role })).body.result.data.secret as string;
  const keys = { interactionKey: await newKey('interaction'), verifyKey: await newKey('verify') };
  const application: Server = createHostApp({ url: server.url, ...keys }).listen(0, '127.0.0.1');
  whenDone(async () => {
    application.close();
    application.closeAllConnections();
  });
  await once(application, 'listening');
  url = `http://127.0.0.1:${(application.address() as AddressInfo).port}`;
}, 60_000);

/** Signs in by the application's own login. */
async function openAs(open: OpenPage, name: string, options: Parameters<OpenPage>[0] = {}) {
  const opened = await open({ permissions: ['clipboard-read', 'clipboard-write'], ...options });
  const { page } = opened;
  await page.goto(url);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(`${name}'s password`);
  await page.getByRole('button', { name: 'Sign in' }).click();
  const own = page.getByRole('region', { name: 'API keys', exact: true });
  await own.waitFor();
  return { ...opened, own, organization: page.getByRole('region', { name: 'API keys of Acme' }) };
}

it('signs out whom the server has not signed in', async () => {
  const body = JSON.stringify({ name: 'alice', password: "alice's password" });
  const login = await fetch(`${url}/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  const [cookie = ''] = login.headers.getSetCookie().map((each) => each.split(';')[0] ?? '');
  const me = async () => (await fetch(`${url}/me`, { headers: { cookie } })).status;
  expect(await me()).toBe(200);
  expect((await fetch(`${url}/logout`, { method: 'POST', headers: { cookie } })).status).toBe(204);
  expect(await me()).toBe(401);
});

const FOCUSED = 'document.activeElement?.getAttribute("aria-label")';

type Panel = Awaited<ReturnType<typeof openAs>>['own'];

/** Creates a key in a panel, and answers its value as the clipboard has it. */
async function createIn(panel: Panel, name: string, scopes: readonly string[] = []) {
  await panel.getByRole('button', { name: 'Create key' }).first().click();
  const dialog = panel.getByRole('dialog', { name: 'Create an API key' });
  await dialog.getByLabel('Name').fill(name);
  for (const scope of scopes) await dialog.getByLabel(scope).check();
  await dialog.getByRole('button', { name: 'Create key' }).click();
  return copied(panel);
}

async function copied(panel: Panel): Promise<string> {
  const shown = await panel.getByTestId('cs-secret').textContent();
  await panel.getByRole('button', { name: 'Copy and close' }).click();
  await panel.getByTestId('cs-secret').waitFor({ state: 'detached' });
  const clipboard = await panel.page().evaluate('navigator.clipboard.readText()');
  expect(clipboard).toBe(shown);
  return String(clipboard);
}

async function choose(panel: Panel, name: string, action: string) {
  await panel.getByRole('button', { name: `Actions of ${name}` }).click();
  await panel.getByRole('menuitem', { name: action }).click();
}

const statusWith = async (value: string) => {
  const response = await fetch(`${url}/api/invoices`, { headers: { authorization: `Bearer ${value}` } });
  await response.text();
  return response.status;
};

describeInBrowser('the panel in an application of its own login', (open) => {
  it('creates a key with chosen scopes that the application’s API accepts, and revokes it', async () => {
    const opened = await openAs(open, 'alice');
    const { own, page } = opened;
    await own.getByText('No API keys found').waitFor();
    const value = await createIn(own, 'nightly export', ['invoices:read']);
    expect(value).toMatch(/^ak_\w{49}$/);
    expect(await statusWith(value)).toBe(200);
    expect(await page.content()).not.toContain(value);
    await own
      .getByRole('row', { name: /nightly export/ })
      .getByText('invoices:read')
      .waitFor();

    expect(await statusWith(await createIn(own, 'without scopes'))).toBe(403);

    await choose(own, 'nightly export', 'Revoke');
    const dialog = own.getByRole('dialog', { name: 'Revoke “nightly export”' });
    const confirm = dialog.getByRole('button', { name: 'Revoke' });
    await dialog.getByLabel('Type “Revoke” to confirm').fill('revoke');
    expect(await confirm.isDisabled()).toBe(true);
    await dialog.getByLabel('Type “Revoke” to confirm').fill('Revoke');
    await confirm.click();
    await own.getByRole('row', { name: /nightly export/ }).waitFor({ state: 'detached' });
    expect(await statusWith(value)).toBe(401);
    await own.getByRole('button', { name: 'Revoked and expired' }).click();
    await own.getByRole('row', { name: /nightly export.*Revoked/ }).waitFor();
    expect(opened.complaints).toEqual([]);
    expect(opened.requests.filter((each) => !each.startsWith(url) && !each.startsWith('data:'))).toEqual([]);
  });

  it('rotates a key: both values work until the overlap is ended', async () => {
    const { own } = await openAs(open, 'alice');
    const before = await createIn(own, 'rotated', ['invoices:read']);
    await choose(own, 'rotated', 'Rotate');
    await own.getByRole('dialog').getByRole('button', { name: 'Rotate' }).click();
    const after = await copied(own);
    expect([await statusWith(before), await statusWith(after)]).toEqual([200, 200]);
    const row = own.getByRole('row', { name: /rotated/ });
    await row.getByText('accepted for another').waitFor();
    await row.getByRole('button', { name: 'End it now' }).click();
    await row.getByText('accepted for another').waitFor({ state: 'detached' });
    expect([await statusWith(before), await statusWith(after)]).toEqual([401, 200]);
  });

  it('renames and describes a key, shows its usage, and finds it by a part of its name', async () => {
    const { own } = await openAs(open, 'alice');
    await statusWith(await createIn(own, 'plain name', ['invoices:read']));
    await choose(own, 'plain name', 'Rename');
    const dialog = own.getByRole('dialog', { name: 'Rename “plain name”' });
    await dialog.getByLabel('Name').fill('fancy name');
    await dialog.getByLabel('Description').fill('for the accountant');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await own.getByRole('row', { name: /fancy name.*for the accountant/ }).waitFor();
    await own.getByLabel('Search keys').fill('FANCY');
    await expect.poll(() => own.getByRole('row').count()).toBe(2);
    await own.getByLabel('Search keys').fill('nobody is called so');
    await own.getByText('No key is called so').waitFor();
    await own.getByLabel('Search keys').fill('');
    await expect
      .poll(
        async () => {
          await choose(own, 'fancy name', 'Usage');
          const text = await own.getByRole('dialog').textContent();
          await own.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
          return text;
        },
        { timeout: 20_000, interval: 500 },
      )
      .toContain('1 accepted, 0 refused');
  });

  it('refuses a second key of the same name in words, and keeps what was typed', async () => {
    const { own } = await openAs(open, 'bob');
    await createIn(own, 'twice');
    await own.getByRole('button', { name: 'Create key' }).click();
    const dialog = own.getByRole('dialog');
    await dialog.getByLabel('Name').fill('twice');
    await dialog.getByRole('button', { name: 'Create key' }).click();
    await dialog.getByRole('alert').getByText('has this name already').waitFor();
    expect(await dialog.getByLabel('Name').inputValue()).toBe('twice');
    await own.page().keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
  });

  it('shows a value once: neither Escape nor a click beside it closes what shows it', async () => {
    const { own, page } = await openAs(open, 'bob');
    await own.getByRole('button', { name: 'Create key' }).click();
    const form = own.getByRole('dialog');
    await form.getByLabel('Name').fill('once');
    await form.getByRole('button', { name: 'Create key' }).click();
    await own.getByTestId('cs-secret').waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    await page.mouse.click(2, 2);
    expect(await own.getByTestId('cs-secret').isVisible()).toBe(true);
    await copied(own);
  });

  it('has an organization’s keys managed by its admins, and seen by its members', async () => {
    const alice = await openAs(open, 'alice');
    await createIn(alice.organization, 'of all', ['invoices:read']);
    const bob = await openAs(open, 'bob');
    const row = bob.organization.getByRole('row', { name: /of all/ });
    await row.waitFor();
    expect(await bob.organization.getByRole('button', { name: 'Create key' }).count()).toBe(0);
    await row.getByRole('button', { name: 'Actions of of all' }).click();
    await expect.poll(() => bob.organization.getByRole('menuitem').allTextContents()).toEqual(['Usage']);
    const forged = `fetch('/api-keys/organization/panelKeys.create', {
      method: 'POST', headers: { 'content-type': 'application/json', 'x-countersign': 'panel' }, body: '{"name":"forged"}',
    }).then((response) => response.status)`;
    expect(await bob.page.evaluate(forged)).toBe(403);
  });

  it('goes through pages, and back where the last one empties', async () => {
    const { organization, page } = await openAs(open, 'alice');
    for (let i = 0; i < 6; i++)
      await server.call('apiKeys.create', {
        name: `paged ${i}`,
        subject: 'org_acme',
        createdBy: 'user_alice',
      });
    await page.reload();
    await organization.getByText(/^Page 1 of/).waitFor();
    await organization.getByRole('button', { name: 'Next' }).click();
    await organization.getByText(/^Page 2 of/).waitFor();
    const { data } = (await server.call('apiKeys.list', { subject: 'org_acme', ended: false, limit: 500 }))
      .body.result.data;
    const [last] = data.slice(5);
    for (const { id } of data.slice(6)) await server.call('apiKeys.revoke', { id });
    await choose(organization, last.name, 'Revoke');
    const dialog = organization.getByRole('dialog');
    await dialog.getByRole('textbox').fill('Revoke');
    await dialog.getByRole('button', { name: 'Revoke' }).click();
    await organization.getByText(/^Page/).waitFor({ state: 'detached' });
    await expect.poll(() => organization.getByRole('row').count()).toBe(6);
  });

  it.each(['light', 'dark'] as const)(
    'can be used by everybody in %s, also on a phone and by keyboard',
    { timeout: 90_000 },
    async (colorScheme) => {
      for (const viewport of [{ width: 1280, height: 900 }, PHONE]) {
        const { own, page, complaints } = await openAs(open, 'alice', { colorScheme, viewport });
        await own.getByRole('row').nth(1).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await own.getByRole('button', { name: 'Create key' }).click();
        await own.getByRole('dialog').waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.keyboard.press('Escape');
        const actions = own.getByRole('button', { name: /^Actions of/ }).first();
        await actions.focus();
        await page.keyboard.press('Enter');
        await own.getByRole('menuitem', { name: 'Usage' }).waitFor();
        await expectAccessible(page);
        await page.keyboard.press('ArrowDown');
        await page.keyboard.press('Escape');
        await expect.poll(() => page.evaluate(FOCUSED)).toMatch(/^Actions of/);
        expect(complaints).toEqual([]);
      }
    },
  );
});
