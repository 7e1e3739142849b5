/** The console in Chromium, with 100,000 API keys and 150 machines: how long until what was asked for is seen. */
import { type Browser, chromium, type Page } from 'playwright-core';
import { binary, ensureInstalled, thisMachine } from '../../test/support/packages.ts';
import { fill } from '../fill.ts';
import { leave, makeScratch } from '../leftovers.ts';
import { type MeasuredServer, startCountersign } from '../processes.ts';
import { ceilingResult, type Result, unmeasured } from '../results.ts';
import { quantile } from '../statistics.ts';

const KEYS = 100_000;
const MACHINES = 150;
/** Machines that each may call. */
const CALLS = 3;
const ROUNDS = 5;
const PAGES_TURNED = 20;
const PAN_STEPS = 120;

const GATES = {
  'console-first-paint': 1_000,
  'console-next-page-p95': 500,
  'console-search': 1_000,
  'console-graph': 2_000,
  'console-graph-frame-p95': 100,
} as const;

type Name = keyof typeof GATES;

export async function measureConsole(): Promise<Result[]> {
  const missing = ensureInstalled(thisMachine, ['chromium']).chromium;
  if (missing !== undefined)
    return Object.entries(GATES).map(([name, atMost]) => unmeasured(name, 'ms', `≤ ${atMost}`, missing));
  const scratch = makeScratch();
  await fill(scratch.folder, KEYS, () => {});
  const server = await startCountersign({ dataDir: scratch.folder });
  await createHousehold(server);
  const browser = await chromium.launch({
    executablePath: binary('chromium') ?? '',
    args: ['--no-sandbox', '--disable-dev-shm-usage'],
  });
  leave(() => void browser.close());
  const taken: Record<Name, number[]> = {
    'console-first-paint': [],
    'console-next-page-p95': [],
    'console-search': [],
    'console-graph': [],
    'console-graph-frame-p95': [],
  };
  for (let round = 0; round < ROUNDS; round++) await walkThrough(browser, server, taken);
  await browser.close();
  await server.stop();
  scratch.remove();
  return Object.entries(taken).map(([name, values]) =>
    ceilingResult(name, 'ms', GATES[name as Name], values),
  );
}

async function createHousehold({ admin }: MeasuredServer) {
  const ids: string[] = [];
  for (let i = 0; i < MACHINES; i++) ids.push((await admin.machines.create({ name: `service ${i}` })).id);
  for (const [i, fromMachineId] of ids.entries())
    for (let call = 0; call < CALLS; call++) {
      const toMachineId = ids[(i * 7 + call * 31 + 1) % MACHINES] ?? '';
      if (toMachineId !== fromMachineId) await admin.machineScopes.create({ fromMachineId, toMachineId });
    }
}

/** Once through all of it, in a browser that has seen nothing yet. */
async function walkThrough(
  browser: Browser,
  { url, adminKey }: MeasuredServer,
  taken: Record<Name, number[]>,
) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${url}/console/api-keys`);
  await page.getByLabel('Secret key', { exact: true }).waitFor();
  taken['console-first-paint'].push(Number(await page.evaluate(FIRST_PAINT)));
  await page.getByLabel('Secret key', { exact: true }).fill(adminKey);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('row').nth(1).waitFor();
  taken['console-next-page-p95'].push(await turnPages(page));
  taken['console-search'].push(await search(page));
  taken['console-graph'].push(await openGraph(page));
  taken['console-graph-frame-p95'].push(await pan(page));
  await context.close();
}

/** It may be told later than the page can be used. */
const FIRST_PAINT = `new Promise((resolve) =>
  new PerformanceObserver((list) => {
    const paint = list.getEntriesByName('first-contentful-paint')[0];
    if (paint) resolve(paint.startTime);
  }).observe({ type: 'paint', buffered: true }),
)`;

async function turnPages(page: Page): Promise<number> {
  const each: number[] = [];
  for (let i = 0; i < PAGES_TURNED; i++) {
    const before = await page.getByRole('row').nth(1).textContent();
    const began = performance.now();
    await page.getByRole('button', { name: 'Next', exact: true }).click();
    await page
      .getByRole('row')
      .nth(1)
      .filter({ hasNotText: before ?? '' })
      .waitFor();
    each.push(performance.now() - began);
  }
  return quantile(each, 0.95);
}

/** By subject, with the fifth of a second for which the page waits for more to be typed. */
async function search(page: Page): Promise<number> {
  const began = performance.now();
  await page.getByLabel('Subject').fill('user_77777');
  await page.getByRole('link', { name: 'key 77777' }).waitFor();
  return performance.now() - began;
}

async function openGraph(page: Page): Promise<number> {
  await page.getByRole('link', { name: 'Machines' }).click();
  await page.getByRole('row').nth(1).waitFor();
  const began = performance.now();
  await page.getByRole('tab', { name: 'Graph' }).click();
  await page.locator('.react-flow__node').first().waitFor();
  return performance.now() - began;
}

/** From one frame to the next, while the graph is dragged across. */
async function pan(page: Page): Promise<number> {
  const box = await page.locator('.react-flow__pane').boundingBox();
  if (!box) throw new Error('Wanted the graph on the page, found none');
  const [x, y] = [box.x + 5, box.y + 5];
  await page.evaluate(WATCH_FRAMES);
  await page.mouse.move(x, y);
  await page.mouse.down();
  for (let i = 1; i <= PAN_STEPS; i++) await page.mouse.move(x + i * 3, y + i * 2);
  await page.mouse.up();
  return quantile((await page.evaluate('globalThis.frames_')) as number[], 0.95);
}

const WATCH_FRAMES = `
  globalThis.frames_ = [];
  let last = performance.now();
  requestAnimationFrame(function watch(now) {
    globalThis.frames_.push(now - last);
    last = now;
    requestAnimationFrame(watch);
  });
`;
