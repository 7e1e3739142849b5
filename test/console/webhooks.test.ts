import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { RECEIVERS } from '../../client/console/webhook-examples.ts';
import {
  describeInBrowser,
  expectAccessible,
  expectNoSidewaysScrolling,
  type OpenPage,
  PHONE,
} from '../support/browser.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { signInAt } from './sign-in.ts';

let server: RunningServer;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
});

/** Answers what it is told to, and keeps what it was sent. */
async function startReceiver() {
  const receiver = { status: 204, sent: [] as { headers: IncomingHttpHeaders; body: string }[], url: '' };
  const http = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    receiver.sent.push({ headers: request.headers, body });
    response.writeHead(receiver.status).end(receiver.status === 204 ? '' : 'Not now');
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  onTestFinished(() => void http.close());
  receiver.url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/hook`;
  return receiver;
}

async function openAt(open: OpenPage, path: string, options = {}) {
  const opened = await open(options);
  await signInAt(opened, server, path);
  return opened;
}

describeInBrowser('webhooks', (open) => {
  it('are created, tested, seen to arrive, and checked by the code that is shown', async () => {
    const receiver = await startReceiver();
    const { page, complaints } = await openAt(open, '/webhooks');
    await page.getByText('No webhook endpoints yet').waitFor();
    await page.getByRole('button', { name: 'Create endpoint' }).click();
    const form = page.getByRole('dialog');
    await form.getByRole('textbox', { name: 'URL' }).fill(receiver.url);
    await form.getByRole('button', { name: 'Create' }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('link', { name: receiver.url }).click();
    await page.getByRole('button', { name: 'Send a test' }).click();
    await page.getByRole('cell', { name: '204' }).first().waitFor();
    await page.getByRole('link', { name: /^dlv_/ }).first().click();
    await page.getByRole('row', { name: /^1 .* 204/ }).waitFor();
    await expectAccessible(page);

    const [sent] = receiver.sent;
    const python = RECEIVERS.find(({ name }) => name === 'Python')?.code ?? '';
    const check = (body: string) =>
      execFileSync(
        'python3',
        [
          '-c',
          `${python}\nimport json, sys\ngiven = json.load(sys.stdin)\nprint(is_genuine(given["headers"], given["body"].encode()))`,
        ],
        {
          input: JSON.stringify({ headers: sent?.headers, body }),
          env: { PATH: process.env['PATH'], COUNTERSIGN_WEBHOOK_SECRET: secret },
        },
      ).toString();
    expect([check(sent?.body ?? ''), check(`${sent?.body} `)]).toEqual(['True\n', 'False\n']);
    expect(complaints).toEqual([]);
  });

  it('show why a delivery fails, and send it once more', async () => {
    const receiver = await startReceiver();
    receiver.status = 500;
    const { id } = (await server.call('webhookEndpoints.create', { url: receiver.url })).body.result.data;
    await server.call('webhookEndpoints.test', { id });
    const { page, complaints } = await openAt(open, `/webhooks/${id}`);
    await page.getByRole('cell', { name: '500' }).first().waitFor();
    await page.getByRole('link', { name: /^dlv_/ }).first().click();
    await page.getByText('Not now').first().waitFor();
    receiver.status = 204;
    await page.getByRole('button', { name: 'Send once more' }).click();
    await page.getByText('arrived').waitFor();
    await page.getByRole('link', { name: 'Its endpoint' }).click();
    const before = receiver.sent.length;
    await page.getByRole('button', { name: 'Replay' }).click();
    await page.getByRole('dialog').getByLabel('Which').selectOption('all');
    await page.getByRole('dialog').getByRole('button', { name: 'Send once more' }).click();
    await page.getByText(/deliveries are sent once more/).waitFor();
    await expect.poll(() => receiver.sent.length).toBeGreaterThan(before);
    expect(complaints).toEqual([]);
  });

  it('have their secret rotated, are disabled, changed, and deleted', async () => {
    const receiver = await startReceiver();
    const { id } = (await server.call('webhookEndpoints.create', { url: receiver.url })).body.result.data;
    const { page, complaints } = await openAt(open, `/webhooks/${id}`);
    await page.getByRole('button', { name: 'Rotate secret' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate', exact: true }).click();
    expect(await page.getByTestId('secret').textContent()).toMatch(/^whsec_/);
    await page.getByRole('button', { name: 'I have kept it' }).click();
    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByText('by somebody').waitFor();
    await page.getByRole('button', { name: 'Edit' }).click();
    await page.getByRole('dialog').getByLabel('Description').fill('for the ledger');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByText('for the ledger').waitFor();
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('textbox').fill(receiver.url);
    await page.getByRole('dialog').getByRole('button', { name: 'Delete endpoint' }).click();
    await page.waitForURL(/\/console\/webhooks$/);
    expect((await server.call('webhookEndpoints.get', { id })).body.error.data.code).toBe('not_found');
    expect(complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)(
    'can be read by everybody in %s, also on a phone',
    { timeout: 90_000 },
    async (colorScheme) => {
      const { id } = (await server.call('webhookEndpoints.create', { url: 'https://receiver.example/' })).body
        .result.data;
      for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
        const { page, complaints } = await openAt(open, `/webhooks/${id}`, { colorScheme, viewport });
        await page.getByRole('heading', { name: 'How to check the signature' }).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        await page.getByRole('link', { name: 'All endpoints' }).click();
        await page.getByRole('row').nth(1).waitFor();
        await expectAccessible(page);
        await expectNoSidewaysScrolling(page);
        expect(complaints).toEqual([]);
      }
    },
  );
});
