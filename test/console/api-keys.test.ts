import { createHash } from 'node:crypto';
import { beforeAll, expect, it } from 'vitest';
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

let server: RunningServer;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
});

async function openAt(open: OpenPage, path: string, options = {}) {
  const opened = await open(options);
  await signInAt(opened, server, path);
  return opened;
}

const create = async (name: string, subject = 'user_1', more: object = {}) =>
  (await server.call('apiKeys.create', { name, subject, ...more })).body.result.data as {
    id: string;
    secret: string;
  };

const verify = async (credential: string) =>
  (await server.call('credentials.verify', { credential })).body.result.data;

describeInBrowser('API keys', (open) => {
  it('are created with scopes and a limit, verify, and are revoked once their name was typed', async () => {
    const opened = await openAt(open, '/api-keys');
    const { page } = opened;
    await page.getByText('No API keys yet').waitFor();
    await page.getByRole('button', { name: 'Create API key' }).click();
    const form = page.getByRole('dialog', { name: 'Create API key' });
    await form.getByLabel('Subject').fill('user_42');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('nightly');
    await form.getByLabel('Scopes', { exact: true }).fill('invoices:read');
    await form.getByLabel('Scopes', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Limits' }).click();
    await form.getByLabel('Verifications at most').fill('100');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    expect(await verify(secret)).toMatchObject({
      valid: true,
      subject: 'user_42',
      scopes: ['invoices:read'],
      rateLimit: { count: 100, remaining: 99 },
    });
    expect(await page.content()).not.toContain(secret);

    await page.getByRole('link', { name: 'nightly' }).click();
    await page.getByRole('button', { name: 'Revoke' }).click();
    const dialog = page.getByRole('dialog', { name: 'Revoke API key' });
    await dialog.getByRole('textbox').fill('nightly');
    await dialog.getByRole('button', { name: 'Revoke API key' }).click();
    await page.getByText('revoked', { exact: true }).waitFor();
    expect(await verify(secret)).toMatchObject({ valid: false, reason: 'revoked' });
    expect([opened.complaints, foreignOf(opened, server)]).toEqual([[], []]);
  });

  it('are edited, disabled, given credits, and rotated with an overlap', async () => {
    const { id, secret } = await create('changed');
    const { page, complaints } = await openAt(open, `/api-keys/${id}`);
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await page.getByRole('dialog').getByRole('textbox', { name: 'Name', exact: true }).fill('changed twice');
    await page.getByRole('dialog').getByRole('button', { name: 'Claims and rotation' }).click();
    await page.getByRole('dialog').getByRole('textbox', { name: 'Claims' }).fill('{"plan":"gold"}');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('heading', { name: 'changed twice' }).waitFor();
    expect(await verify(secret)).toMatchObject({ claims: { plan: 'gold' } });

    await page.getByRole('button', { name: 'Credits' }).click();
    await page.getByRole('dialog').getByLabel('Credits left').fill('7');
    await page.getByRole('dialog').getByRole('button', { name: 'Set' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    expect(await verify(secret)).toMatchObject({ creditsRemaining: 6 });

    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('button', { name: 'Enable' }).waitFor();
    expect(await verify(secret)).toMatchObject({ valid: false, reason: 'disabled' });
    await page.getByRole('button', { name: 'Enable' }).click();

    await page.getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate', exact: true }).click();
    const rotated = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByTestId('overlap').waitFor();
    expect(await verify(secret)).toMatchObject({ valid: true });
    await page.getByRole('button', { name: 'End the old value now' }).click();
    await page.getByTestId('overlap').waitFor({ state: 'detached' });
    expect([await verify(secret), await verify(rotated)]).toMatchObject([{ valid: false }, { valid: true }]);
    expect(complaints).toEqual([]);
  });

  it('are found by name, value, subject and state, and all of a subject are revoked', async () => {
    const keys = [await create('alpha', 'org_7'), await create('beta', 'org_7')];
    await server.call('apiKeys.disable', { id: keys[0]?.id });
    const { page } = await openAt(open, '/api-keys');
    const names = () => page.getByRole('row').locator('a').allTextContents();
    await page.getByLabel('Search').fill('ALPH');
    await expect.poll(names).toEqual(['alpha']);
    await page.getByLabel('Search').fill(keys[1]?.secret.slice(0, 9) ?? '');
    await expect.poll(names).toEqual(['beta']);
    await page.getByLabel('Search').fill('');
    await page.getByLabel('Subject').fill('org_7');
    await page.getByLabel('State').selectOption('disabled');
    await expect.poll(names).toEqual(['alpha']);
    await page.getByLabel('State').selectOption('');
    await page.getByRole('button', { name: 'Revoke all of them' }).click();
    await page.getByRole('dialog').getByRole('textbox').fill('org_7');
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke all' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    expect(await verify(keys[1]?.secret ?? '')).toMatchObject({ valid: false, reason: 'revoked' });
  });

  it('are searched some thousands at a time, and the page says so', { timeout: 60_000 }, async () => {
    await create('older than all the others');
    for (let batch = 0; batch < 11; batch++) {
      const items = Array.from({ length: 1_000 }, (_, i) => ({
        hash: createHash('sha256').update(`bulk ${batch} ${i}`).digest('hex'),
        subject: 'user_bulk',
        name: `bulk ${batch} ${i}`,
      }));
      const { status } = await server.call('apiKeys.import', { items });
      expect(status).toBe(200);
    }
    const { page } = await openAt(open, '/api-keys');
    await page.getByLabel('Search').fill('older than');
    await page.getByText('None among those looked at so far').waitFor();
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByRole('link', { name: 'older than all the others' }).waitFor();
    await server.call('apiKeys.revokeAll', { subject: 'user_bulk' });
  });

  it('have policies that are created, changed and deleted', async () => {
    const { page, complaints } = await openAt(open, '/api-keys/policies');
    await page.getByText('No key policies yet').waitFor();
    await page.getByRole('button', { name: 'Create policy' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('trial');
    await form.getByLabel('Live keys of a subject').fill('3');
    await form.getByRole('button', { name: 'Create' }).click();
    await form.waitFor({ state: 'detached' });
    await page.getByRole('row', { name: /trial.*at most 3/ }).waitFor();
    await page.getByRole('button', { name: 'Edit trial' }).click();
    await form.getByLabel('Any scope').uncheck({ force: true });
    await form.getByLabel('Scopes', { exact: true }).fill('read');
    await form.getByLabel('Scopes', { exact: true }).press('Enter');
    await form.getByRole('button', { name: 'Save' }).click();
    await form.waitFor({ state: 'detached' });
    await page.getByRole('row', { name: /trial.*read/ }).waitFor();
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Delete trial' }).click();
    await form.getByRole('textbox').fill('trial');
    await form.getByRole('button', { name: 'Delete policy' }).click();
    await page.getByText('No key policies yet').waitFor();
    expect(complaints).toEqual([]);
  });

  it('are imported from a CSV file, row by row, and are already there the second time', async () => {
    const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
    const csv = [
      'subject,name,value,hash,scopes,description',
      `user_9,by value,legacy_${'a'.repeat(30)},,read write,"with ""quotes"", and commas"`,
      `user_9,by hash,,${sha256(`legacy_${'b'.repeat(30)}`)},,`,
      '',
      'user_9,without a value,,nonsense,,',
    ].join('\r\n');
    const { page, requests, complaints } = await openAt(open, '/api-keys/import');
    const upload = { name: 'keys.csv', mimeType: 'text/csv', buffer: Buffer.from(csv) };
    await page.locator('input[type=file]').setInputFiles(upload);
    await page.getByLabel('Values begin with').fill('legacy_');
    await page.getByRole('button', { name: 'Import', exact: true }).click();
    await page.getByRole('status').getByText('2 imported, 0 already there, 1 refused').waitFor();
    await page.getByRole('row', { name: /^3 refused/ }).waitFor();
    expect(await verify(`legacy_${'a'.repeat(30)}`)).toMatchObject({
      valid: true,
      scopes: ['read', 'write'],
    });
    expect(await verify(`legacy_${'b'.repeat(30)}`)).toMatchObject({ valid: true, name: 'by hash' });
    await page.getByRole('button', { name: 'Import', exact: true }).click();
    await page.getByRole('status').getByText('0 imported, 2 already there, 1 refused').waitFor();
    await expectAccessible(page);
    expect(requests.filter((each) => each.includes('legacy_'))).toEqual([]);
    expect(complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      const { id, secret } = await create(`seen in ${colorScheme}`);
      await verify(secret);
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const opened = await openAt(open, '/api-keys', { colorScheme, viewport });
        const { page } = opened;
        await page.getByRole('link', { name: `seen in ${colorScheme}` }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.getByRole('button', { name: 'Create API key' }).click();
        await page.getByRole('dialog').waitFor();
        await expectAccessible(page);
        await page.goto(`${server.url}/console/api-keys/${id}`);
        await page.getByRole('heading', { name: 'Usage over 30 days' }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        expect(opened.complaints).toEqual([]);
      }
    },
  );
});

describeInBrowser('secret keys', (open) => {
  it('are created with a role, rotated, and revoked; one’s own signs out', async () => {
    const { page, complaints } = await openAt(open, '/secret-keys');
    await page.getByRole('button', { name: 'Create secret key' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'Name', exact: true }).fill('second admin');
    await form.getByLabel('Role').selectOption('admin');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    expect((await server.call('machines.list', {}, secret)).status).toBe(200);

    await page.getByRole('button', { name: 'Rotate second admin' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate', exact: true }).click();
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByTestId('overlap').waitFor();

    await expectAccessible(page);
    await page.getByRole('button', { name: 'Revoke second admin' }).click();
    await page.getByRole('dialog').getByRole('textbox').fill('second admin');
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke secret key' }).click();
    await page.getByRole('row', { name: /second admin.*revoked/ }).waitFor();
    expect((await server.call('machines.list', {}, secret)).status).toBe(401);
    expect(complaints).toEqual([]);
  });

  it('say in words that the last admin key stays', async () => {
    const { page } = await openAt(open, '/secret-keys');
    const own = page.getByRole('row').filter({ hasText: 'yours' });
    await own.getByRole('button', { name: /^Revoke/ }).click();
    const name =
      (
        await page
          .getByRole('dialog')
          .getByText(/^Type “/)
          .textContent()
      )?.match(/“(.*)”/)?.[1] ?? '';
    await page.getByRole('dialog').getByRole('textbox').fill(name);
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke secret key' }).click();
    await page.getByRole('dialog').getByText('last_admin_key').waitFor();
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const { page, complaints } = await openAt(open, '/secret-keys', { colorScheme, viewport });
        await page.getByRole('row').nth(1).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        expect(complaints).toEqual([]);
      }
    },
  );
});
