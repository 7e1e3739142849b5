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

const create = async (path: string, input: object) => (await server.call(path, input)).body.result.data;

describeInBrowser('the overview', (open) => {
  it('is what opens first, and counts what is verified while it is looked at', async () => {
    const key = await create('apiKeys.create', { name: 'seen', subject: 'user_1', ttlSeconds: 86_400 });
    const { page, complaints, requests } = await openAt(open, '');
    await page.waitForURL(/\/console\/overview$/);
    const verified = page.getByRole('region', { name: /Verifications/ });
    await verified.getByText('None').waitFor();
    await page.getByRole('region', { name: 'API keys' }).getByText('1 live').waitFor();
    await page.getByRole('region', { name: 'Expires this week' }).getByText('seen').waitFor();
    for (const credential of [key.secret, key.secret, 'garbage'])
      await server.call('credentials.verify', { credential });
    await verified.getByText('2 valid').waitFor();
    await verified.getByText('1 malformed').waitFor();
    expect([complaints, foreignOf({ page, complaints, requests }, server)]).toEqual([[], []]);
  });
});

describeInBrowser('events', (open) => {
  it('are shown as they happen, found by what they are of, and read in full', async () => {
    const { page, complaints } = await openAt(open, '/events');
    await page.getByRole('button', { name: 'installation.created' }).waitFor();
    const { id } = await create('machines.create', { name: 'followed' });
    const row = page.getByRole('row').filter({ hasText: id });
    await row.getByRole('button', { name: 'machine.created' }).click();
    await page.getByRole('dialog').getByText('"followed"').waitFor();
    await page.keyboard.press('Escape');
    await page.getByLabel('Type').selectOption('secret_key.created');
    await expect.poll(() => row.count()).toBe(0);
    await page.getByLabel('Type').selectOption('');
    await page.getByRole('textbox', { name: 'Of', exact: true }).fill(id);
    await expect.poll(() => page.getByRole('row').count()).toBe(2);
    await row.getByRole('link').click();
    await page.waitForURL(new RegExp(`/console/machines/${id}$`));
    expect(complaints).toEqual([]);
  });
});

describeInBrowser('try it', (open) => {
  it('says why, decodes a JWT, and keeps the credential out of addresses', async () => {
    const from = await create('machines.create', { name: 'from' });
    const to = await create('machines.create', { name: 'to' });
    await create('machineScopes.create', { fromMachineId: from.id, toMachineId: to.id });
    const { body } = await server.call('m2mTokens.create', { format: 'jwt' }, from.secret);
    const { token } = body.result.data;
    const { page, requests, complaints } = await openAt(open, '/try-it');
    await page.getByRole('textbox', { name: 'Credential' }).fill(token);
    await page.getByText(`"sub": "${from.id}"`).waitFor();
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByRole('status').getByText('audience_required').waitFor();
    await page.getByRole('textbox', { name: 'Presented to' }).fill(to.id);
    await page.getByRole('button', { name: 'Verify' }).click();
    await page.getByRole('status').getByText('Valid').waitFor();
    await expectAccessible(page);
    expect(requests.filter((each) => each.includes(token.slice(0, 40)))).toEqual([]);
    expect(complaints).toEqual([]);
  });
});

describeInBrowser('jobs', (open) => {
  it('are seen, and run at once', async () => {
    const { page, complaints } = await openAt(open, '/jobs');
    const row = page.getByRole('row').filter({ hasText: 'expiry-sweep' });
    await row.getByRole('button', { name: 'Run now: expiry-sweep' }).click();
    await expect.poll(() => row.getByText('never').count(), { timeout: 15_000 }).toBe(0);
    expect(complaints).toEqual([]);
  });
});

describeInBrowser('these pages', (open) => {
  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const { page, complaints } = await openAt(open, '/overview', { colorScheme, viewport });
        for (const [path, shown] of [
          ['overview', 'Expires this week'],
          ['events', 'installation.created'],
          ['try-it', 'Verify'],
          ['jobs', 'expiry-sweep'],
          ['signing-keys', 'signs now'],
        ]) {
          await page.goto(`${server.url}/console/${path}`);
          await page
            .locator('main')
            .getByText(shown ?? '')
            .locator('visible=true')
            .first()
            .waitFor();
          await expectAccessible(page);
          await expectNoSidewaysScrolling(page);
        }
        expect(complaints).toEqual([]);
      }
    },
  );
});
