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

const createApplication = async (name: string) =>
  (await server.call('oauthApplications.create', { name, redirectUris: ['https://app.example/callback'] }))
    .body.result.data.id as string;

const stateOf = async (id: string) => (await server.call('oauthGrants.get', { id })).body.result.data.state;

async function openAt(open: OpenPage, path: string, options = {}) {
  const opened = await open(options);
  await signInAt(opened, server, path);
  return opened;
}

describeInBrowser('OAuth grants', (open) => {
  it('are listed by user and by application, and revoked one by one once the user was typed', async () => {
    const [ledger, reports] = [await createApplication('Ledger'), await createApplication('Reports')];
    const [first = '', second = '', other = ''] = await grantAt(server, [
      { applicationId: ledger, subject: 'user_alice', organizationId: 'org_acme' },
      { applicationId: reports, subject: 'user_alice' },
      { applicationId: ledger, subject: 'user_bob' },
    ]);
    const { page, complaints } = await openAt(open, '/oauth-grants');
    await page.getByRole('row').nth(3).waitFor();
    await page.getByLabel('User', { exact: true }).fill('user_alice');
    await expect.poll(() => page.getByRole('row').count()).toBe(3);
    expect(page.url()).toContain('subject=user_alice');
    await page.getByText('for org_acme').waitFor();
    await page.getByRole('button', { name: `Revoke ${first}` }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox').fill('user_alice');
    await dialog.getByRole('button', { name: 'Revoke grant' }).click();
    await page.getByRole('row', { name: /Ledger.*revoked/ }).waitFor();
    expect([await stateOf(first), await stateOf(second), await stateOf(other)]).toEqual([
      'revoked',
      'live',
      'live',
    ]);
    await page.getByRole('link', { name: 'Ledger' }).click();
    await page.getByRole('heading', { name: 'Users who allowed it' }).waitFor();
    await page.getByRole('row', { name: /user_bob/ }).waitFor();
    expect(await page.getByRole('row', { name: /Reports/ }).count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  it('are withdrawn with all that the user allowed the application', async () => {
    const [id, other] = [await createApplication('Withdrawn'), await createApplication('Stays')];
    const [first = '', second = '', stays = ''] = await grantAt(server, [
      { applicationId: id, subject: 'user_carol' },
      { applicationId: id, subject: 'user_carol', organizationId: 'org_acme' },
      { applicationId: other, subject: 'user_carol' },
    ]);
    const { page, complaints } = await openAt(open, `/oauth-grants?subject=user_carol`);
    await page.getByRole('button', { name: `Withdraw ${first}` }).click();
    await page.getByRole('dialog').getByRole('textbox').fill('user_carol');
    await page.getByRole('dialog').getByRole('button', { name: 'Withdraw all' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    expect([await stateOf(first), await stateOf(second), await stateOf(stays)]).toEqual([
      'revoked',
      'revoked',
      'live',
    ]);
    expect(complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      const applicationId = await createApplication(`seen in ${colorScheme}`);
      await grantAt(server, [{ applicationId, subject: `user_${colorScheme}` }]);
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const { page, complaints } = await openAt(open, '/oauth-grants', { colorScheme, viewport });
        await page.getByRole('row').nth(1).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.getByLabel('User', { exact: true }).fill('user_nobody');
        await page.getByText('No grant is like this').waitFor();
        await expectAccessible(page);
        expect(complaints).toEqual([]);
      }
    },
  );
});
