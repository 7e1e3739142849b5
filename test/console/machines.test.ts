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

const create = async (name: string) =>
  (await server.call('machines.create', { name })).body.result.data as { id: string; secret: string };

async function openAt(open: OpenPage, path: string, options = {}) {
  const opened = await open(options);
  await signInAt(opened, server, path);
  return opened;
}

describeInBrowser('machines', (open) => {
  it('are created with a secret that is shown once, and with that a token is minted', async () => {
    const opened = await openAt(open, '/machines');
    const { page } = opened;
    await page.getByRole('button', { name: 'Create machine' }).click();
    const form = page.getByRole('dialog', { name: 'Create machine' });
    await form.getByLabel('Name').fill('billing');
    await form.getByRole('button', { name: 'Create', exact: true }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    expect(secret).toMatch(/^msk_\w{49}$/);
    await page.keyboard.press('Escape');
    await page.getByTestId('secret').waitFor();
    await expectAccessible(page);
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('link', { name: 'billing' }).waitFor();
    expect(await page.content()).not.toContain(secret);

    const { id } = await create('ledger');
    const { data } = (await server.call('machines.list', { query: 'billing' })).body.result.data;
    await server.call('machineScopes.create', { fromMachineId: data[0].id, toMachineId: id });
    const minted = await fetch(`${server.url}/v1/m2m_tokens`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
      body: '{}',
    });
    expect(minted.status).toBe(201);
    await minted.text();
    expect([opened.complaints, foreignOf(opened, server)]).toEqual([[], []]);
  });

  it('are granted a call, and it is taken back once its name was typed', async () => {
    const [from] = [await create('orders'), await create('stock')];
    const opened = await openAt(open, `/machines/${from.id}`);
    const { page } = opened;
    await page.getByRole('button', { name: 'Grant' }).click();
    const form = page.getByRole('dialog');
    await form.getByPlaceholder('Part of a name').fill('stock');
    await page.getByRole('option', { name: /stock/ }).click();
    await form.getByRole('button', { name: 'Grant' }).click();
    const row = page.getByRole('row').filter({ hasText: 'stock' });
    await row.getByRole('button', { name: 'Revoke' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox').fill('stock');
    await dialog.getByRole('button', { name: 'Revoke' }).click();
    await row.waitFor({ state: 'detached' });
    const { data } = (await server.call('machineScopes.list', { fromMachineId: from.id })).body.result.data;
    expect(data).toEqual([]);
    expect(opened.complaints).toEqual([]);
  });

  it('get a new secret while the old one is accepted, and are deleted', async () => {
    const { id } = await create('reports');
    const opened = await openAt(open, `/machines/${id}`);
    const { page } = opened;
    await page.getByRole('button', { name: 'Rotate secret' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate', exact: true }).click();
    expect(await page.getByTestId('secret').textContent()).toMatch(/^msk_/);
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByTestId('overlap').waitFor();
    await page.getByRole('button', { name: 'Delete' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox').fill('reports');
    await dialog.getByRole('button', { name: 'Delete machine' }).click();
    await page.waitForURL(/\/console\/machines$/);
    expect((await server.call('machines.get', { id })).body.error.data.code).toBe('not_found');
    expect(opened.complaints).toEqual([]);
  });

  it('stay usable as a graph of 150, whose twin is a table', { timeout: 60_000 }, async () => {
    const made = await Promise.all(Array.from({ length: 150 }, (_, i) => create(`service ${i}`)));
    for (const [i, { id }] of made.entries())
      await server.call('machineScopes.create', {
        fromMachineId: id,
        toMachineId: made[(i * 7 + 1) % made.length]?.id,
      });
    const opened = await openAt(open, '/machines/graph');
    const { page } = opened;
    await page.locator('.react-flow__node').first().waitFor();
    await page.getByRole('tab', { name: 'Who may call whom' }).click();
    await page.getByRole('row').nth(1).waitFor();
    expect(opened.complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      const { id } = await create(`seen in ${colorScheme}`);
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const opened = await openAt(open, '/machines', { colorScheme, viewport });
        const { page } = opened;
        await page.getByRole('link', { name: `seen in ${colorScheme}` }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.goto(`${server.url}/console/machines/${id}`);
        await page.getByRole('button', { name: 'Rotate secret' }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        expect(opened.complaints).toEqual([]);
      }
    },
  );
});
