/** A real Chromium, as people use it: pages that say what they asked for, and what is wrong with them. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { beforeAll, describe, expect, inject, onTestFinished } from 'vitest';
import { whenSuiteDone } from './deps.ts';

export const PHONE = { width: 390, height: 844 };

export interface Opened {
  page: Page;
  /** Every URL that was asked for. */
  requests: string[];
  /** What the page complained of: errors, and what its Content-Security-Policy refused. */
  complaints: string[];
}

export type OpenPage = (options?: BrowserContextOptions) => Promise<Opened>;

/** Runs a suite in Chromium, skipped with the reason where there is none. Each page is of a browser of its own, without cookies. */
export function describeInBrowser(name: string, suite: (open: OpenPage) => void) {
  const { path, missing } = inject('chromium');
  const body = () => {
    const whenDone = whenSuiteDone();
    let browser: Browser;
    beforeAll(async () => {
      browser = await chromium.launch({
        executablePath: path ?? '',
        // A container's root has no other way, and a container's /dev/shm is small.
        args: ['--no-sandbox', '--disable-dev-shm-usage'],
      });
      whenDone(() => browser.close());
    });
    suite((options) => open(browser, options));
  };
  if (path) describe(`${name} in Chromium`, body);
  else describe.skip(`${name} in Chromium [skipped: ${missing}]`, body);
}

async function open(browser: Browser, options: BrowserContextOptions = {}): Promise<Opened> {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options });
  onTestFinished(() => context.close());
  const page = await context.newPage();
  // Two browsers and what they ask may share two cores with all the rest.
  page.setDefaultTimeout(20_000);
  const requests: string[] = [];
  const complaints: string[] = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    // An answer that is no 200 is told of too, and is none of the page's faults.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
      complaints.push(message.text());
  });
  return { page, requests, complaints };
}

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

const RUNNING = 'document.getAnimations().filter(({ playState }) => playState === "running").length';

interface Violation {
  id: string;
  help: string;
  nodes: { target: unknown[]; failureSummary?: string }[];
}

/** Throws what axe finds against WCAG 2.2 AA on the page as it stands. */
export async function expectAccessible(page: Page) {
  // What fades in is judged as it stays.
  await expect.poll(() => page.evaluate(RUNNING)).toBe(0);
  const isThere = await page.evaluate('typeof axe !== "undefined"');
  // By evaluation, which no Content-Security-Policy of the page's concerns.
  if (!isThere) await page.evaluate(readFileSync(AXE, 'utf8'));
  const run = `axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((found) => found.violations)`;
  const violations = (await page.evaluate(run)) as Violation[];
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${JSON.stringify(nodes, null, 1)}`);
  expect(told).toEqual([]);
}

/** Throws where the page is wider than its window, which on a phone hides half of it. */
export async function expectNoSidewaysScrolling(page: Page) {
  const [content, window] = (await page.evaluate(
    '[document.documentElement.scrollWidth, document.documentElement.clientWidth]',
  )) as [number, number];
  expect(content).toBeLessThanOrEqual(window);
}
