import { beforeAll, expect, it } from 'vitest';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type OpenPage,
  PHONE,
} from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { grantAt } from '../support/oauth-grants.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { signInAt } from './sign-in.ts';

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

const find = async (signInName: string) =>
  (await server.call('users.list', { signInName })).body.result.data.data[0];

/** Opens an invitation as the one who got it, and chooses a name and a password. */
async function accept(open: OpenPage, link: string, signInName: string) {
  const { page } = await open();
  await page.goto(link);
  await page.getByLabel('Name to sign in with').fill(signInName);
  await page.getByLabel('Password', { exact: true }).fill('correct horse battery staple');
  await page.getByLabel('The same password again').fill('correct horse battery staple');
  await page.getByRole('button').last().click();
  await expect.poll(() => find(signInName)).toBeDefined();
}

describeInBrowser('users', (open) => {
  it('are invited by a link that is shown once, edited, disabled, and deleted once their name was typed', async () => {
    const { page, complaints } = await openAt(open, '/users');
    await page.getByText('No users yet').waitFor();
    await page.getByRole('button', { name: 'Invite' }).click();
    const form = page.getByRole('dialog');
    await form.getByLabel('Name', { exact: true }).fill('Alice Liddell');
    await form.getByRole('button', { name: 'Make a link' }).click();
    const link = (await page.getByTestId('secret').textContent()) ?? '';
    expect(link).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/oauth\/invitation\?value=inv_\w{49}$/);
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('tab', { name: 'Invitations' }).click();
    await page.getByRole('row', { name: /Alice Liddell.*a user/ }).waitFor();

    await accept(open, link, 'alice');
    const { id } = await find('alice');
    await page.goto(`${server.url}/console/users/${id}`);
    await page.getByRole('heading', { name: 'alice' }).waitFor();
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await form.getByLabel('E-mail address').fill('alice@example.com');
    await form.getByRole('button', { name: 'Save' }).click();
    await page.getByText('alice@example.com, not verified').waitFor();
    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('button', { name: 'Enable' }).waitFor();
    expect(await find('alice')).toMatchObject({ enabled: false, email: 'alice@example.com' });

    await page.getByRole('button', { name: 'Delete' }).click();
    await form.getByRole('textbox').fill('alice');
    await form.getByRole('button', { name: 'Delete user' }).click();
    await page.waitForURL(/\/console\/users$/);
    expect(await find('alice')).toBeUndefined();
    expect(complaints).toEqual([]);
  });

  it('are found by the name they sign in with, and shown with what they allowed and where they are signed in', async () => {
    const { body } = await server.call('users.invite', { name: 'Bob' });
    await accept(open, body.result.data.link, 'bob');
    const { id } = await find('bob');
    const application = await server.call('oauthApplications.create', {
      name: 'Ledger',
      redirectUris: ['https://app.example/callback'],
    });
    await grantAt(server, [{ applicationId: application.body.result.data.id, subject: id }]);
    const { page, complaints } = await openAt(open, '/users');
    await page.getByLabel('Signs in as').fill('nobody');
    await page.getByText('Nobody signs in so').waitFor();
    await page.getByLabel('Signs in as').fill('BOB');
    await page.getByRole('link', { name: 'bob' }).click();
    await page.getByRole('row', { name: /Ledger/ }).waitFor();
    await page.getByRole('button', { name: 'New password' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Make a link' }).click();
    await page.getByTestId('secret').waitFor();
    await page.getByRole('button', { name: 'I have kept it' }).click();
    expect(complaints).toEqual([]);
  });

  it('have invitations that are taken back once their name was typed', async () => {
    await server.call('users.invite', { name: 'Carol' });
    const { page, complaints } = await openAt(open, '/users/invitations');
    await page.getByRole('button', { name: 'Take back Carol' }).click();
    await page.getByRole('dialog').getByRole('textbox').fill('Carol');
    await page.getByRole('dialog').getByRole('button', { name: 'Take invitation back' }).click();
    await page.getByRole('row', { name: /Carol/ }).waitFor({ state: 'detached' });
    expect(complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 120_000 },
    async (colorScheme) => {
      const { body } = await server.call('users.invite', { name: colorScheme });
      await accept(open, body.result.data.link, `seen-in-${colorScheme}`);
      await server.call('users.invite', { name: 'open' });
      const { id } = await find(`seen-in-${colorScheme}`);
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const { page, complaints } = await openAt(open, '/users', { colorScheme, viewport });
        await page.getByRole('link', { name: `seen-in-${colorScheme}` }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        const pages = { invitations: 'Take back', sessions: 'Signed in', [id]: 'Allowed applications' };
        for (const [path, text] of Object.entries(pages)) {
          await page.goto(`${server.url}/console/users/${path}`);
          await page.getByText(text).first().waitFor();
          await expectAccessible(page);
          await expectNoSidewaysScrolling(page);
        }
        expect(complaints).toEqual([]);
      }
    },
  );
});
