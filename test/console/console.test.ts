import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { describeInBrowser, expectAccessible, expectNoSidewaysScrolling, PHONE } from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { foreignOf, signInAt } from './sign-in.ts';

let server: RunningServer;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
});

describeInBrowser('the console', (open) => {
  it('is signed in to by a secret key, shows the page that was asked for, and is signed out of', async () => {
    const opened = await open();
    const { page, complaints } = opened;
    await signInAt(opened, server, '/signing-keys');
    await page.getByRole('heading', { name: 'Signing keys' }).waitFor();
    await page.getByText('signs now').waitFor();
    await page.reload();
    await page.getByText('signs now').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Secret key', { exact: true }).waitFor();
    expect([complaints, foreignOf(opened, server)]).toEqual([[], []]);
  });

  it('is signed in to by a link, once; the link is in the address no more', async () => {
    const { body } = await server.call('signInLinks.issue');
    const { page } = await open();
    await page.goto(body.result.data.url);
    await page.getByRole('heading', { name: 'Machines' }).waitFor();
    expect(page.url()).not.toContain('link');
    const again = await open();
    await again.page.goto(body.result.data.url);
    await again.page.getByRole('alert').getByText('the link was used before').waitFor();
  });

  it('takes a link while somebody is signed in: it may be of another key', async () => {
    const made = await server.call('secretKeys.create', { name: 'reader', role: 'read' });
    const { secret } = made.body.result.data;
    const link = (await server.call('signInLinks.issue', undefined, secret)).body.result.data.url;
    const opened = await open();
    await signInAt(opened, server, '/jobs');
    await opened.page.getByText('(admin)').waitFor();
    await opened.page.goto('about:blank');
    await opened.page.goto(link);
    await opened.page.getByText('reader (read)').waitFor();
  });

  it('says what was wrong with a key, and asks anew when the session has ended', async () => {
    const { page } = await open();
    await page.goto(`${server.url}/console/`);
    await page.getByLabel('Secret key', { exact: true }).fill(`sk_${'0'.repeat(49)}`);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('wanted a live secret key').waitFor();

    const { body } = await server.call('secretKeys.create', { name: 'for a while', role: 'admin' });
    await page.getByLabel('Secret key', { exact: true }).fill(body.result.data.secret);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('link', { name: 'Signing keys' }).click();
    await page.getByText('signs now').waitFor();
    await server.call('secretKeys.revoke', { id: body.result.data.id });
    await page.getByRole('button', { name: 'Publish the next key' }).click();
    await page.getByRole('alert').getByText('The session has ended').waitFor();
    await page.reload();
    await page.getByLabel('Secret key', { exact: true }).waitFor();
  });

  it('shows who is signed in, and signs them out', async () => {
    const { body } = await server.call('secretKeys.create', { name: 'of a colleague', role: 'read' });
    const colleague = await open();
    await colleague.page.goto(`${server.url}/console/sessions`);
    await colleague.page.getByLabel('Secret key', { exact: true }).fill(body.result.data.secret);
    await colleague.page.getByRole('button', { name: 'Sign in' }).click();
    await colleague.page.getByRole('row', { name: /of a colleague this one/ }).waitFor();
    expect(await colleague.page.getByRole('button', { name: /^End/ }).count()).toBe(0);

    const opened = await open();
    const { page, complaints } = opened;
    await signInAt(opened, server, '/sessions');
    const row = page.getByRole('row', { name: /of a colleague/ });
    await row.getByRole('button', { name: /^End/ }).click();
    await page.getByRole('textbox').fill('of a colleague');
    await page.getByRole('button', { name: 'End session' }).click();
    await row.waitFor({ state: 'detached' });
    await colleague.page.reload();
    await colleague.page.getByLabel('Secret key', { exact: true }).waitFor();
    await expectAccessible(page);
    expect([complaints, foreignOf(opened, server)]).toEqual([[], []]);
  });

  it('publishes a key, has it sign, and retires it once its name was typed', async () => {
    const opened = await open();
    const { page } = opened;
    await signInAt(opened, server, '/signing-keys');
    await page.getByRole('button', { name: 'Publish the next key' }).click();
    const upcoming = page.getByRole('row').filter({ hasText: 'signs soon' });
    const kid = (await upcoming.locator('code').textContent()) ?? '';
    await upcoming.getByRole('button', { name: 'Retire at once' }).click();
    const dialog = page.getByRole('dialog');
    await expectAccessible(page);
    const retire = dialog.getByRole('button', { name: 'Retire at once' });
    expect(await retire.isDisabled()).toBe(true);
    await dialog.getByRole('textbox').fill(kid);
    await retire.click();
    await page.getByRole('row').filter({ hasText: kid }).getByText('verifies nothing any more').waitFor();
    expect(opened.complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      const opened = await open({ colorScheme, viewport: PHONE });
      const { page } = opened;
      await page.goto(`${server.url}/console/`);
      await page.getByLabel('Secret key', { exact: true }).waitFor();
      await expectAccessible(page);
      await signInAt(opened, server, '/signing-keys');
      await page.getByText('signs now').waitFor();
      await expectAccessible(page);
      await expectNoSidewaysScrolling(page);
      await page.getByRole('button', { name: 'Navigation' }).click();
      await page.getByRole('link', { name: 'Signing keys' }).click();
      expect(opened.complaints).toEqual([]);
    },
  );
});

describe('what is built', () => {
  it('needs at most 300 KB of script, compressed, to begin', () => {
    const folder = fileURLToPath(new URL('../../dist/console/', import.meta.url));
    const page = readFileSync(`${folder}index.html`, 'utf8');
    const first = [...page.matchAll(/(?:src|href)="\/console\/(assets\/[^"]+\.js)"/g)].map(
      ([, file]) => file,
    );
    expect(first.length).toBeGreaterThan(0);
    expect(readdirSync(`${folder}assets`).length).toBeGreaterThan(first.length);
    const bytes = first.map((file) => gzipSync(readFileSync(folder + file)).length);
    expect(bytes.reduce((sum, size) => sum + size)).toBeLessThan(300 * 1024);
  });
});
