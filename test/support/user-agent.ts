/** OAuth's endpoints inside a test's own process, and a browser without script that walks through its pages. */
import { createHash, randomBytes } from 'node:crypto';
import { expect, onTestFinished } from 'vitest';
import type { Deps } from '../../server/deps.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { refreshIn } from './plain-browser.ts';
import { listen } from './procedures.ts';

/** Serves every endpoint; `publicUrl` is where it listens. A test in which the server failed fails at its end. */
export async function serveOauth(deps: Deps): Promise<{ deps: Deps; url: string }> {
  const feeds = createFeeds(deps, createLogger('silent'));
  const failures: unknown[] = [];
  const served = { ...deps };
  const routes = createHotRoutes({
    deps: served,
    feeds,
    addressOf: ({ socket }) => socket.remoteAddress ?? '',
    report: ({ cause }) => failures.push(cause),
  });
  const { url } = await listen((request, response) => {
    if (!routes(request, response, 'req_test', 0)) response.writeHead(404).end();
  });
  Object.assign(served, { publicUrl: url });
  onTestFinished(() => {
    feeds.close();
    expect(failures).toEqual([]);
  });
  return { deps: served, url };
}

export interface Page {
  status: number;
  /** Where it leads by itself: by a redirect, or by a page that stands for one. */
  location: string | null;
  headers: Headers;
  text: string;
}

/** Keeps cookies, follows nothing by itself. */
export class UserAgent {
  readonly #origin: string;
  readonly cookies = new Map<string, string>();

  constructor(origin: string) {
    this.#origin = origin;
  }

  get(url: string): Promise<Page> {
    return this.#send(url, {});
  }

  /** Posts the form on a page, as pressing a button of it would. */
  submit(page: Page, fields: Record<string, string>): Promise<Page> {
    const action = /<form[^>]* action="([^"]*)"/.exec(page.text)?.[1] ?? '';
    const hidden = [...page.text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g)];
    const body = new URLSearchParams();
    for (const [, name = '', value = ''] of hidden) body.set(name, unescapeHtml(value));
    for (const [name, value] of Object.entries(fields)) body.set(name, value);
    return this.#send(action, { method: 'POST', body, headers: { Origin: this.#origin } });
  }

  async #send(url: string, init: RequestInit): Promise<Page> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(new URL(url, this.#origin), {
      ...init,
      redirect: 'manual',
      headers: { ...init.headers, ...(cookie !== '' && { Cookie: cookie }) },
    });
    for (const set of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(set) ?? [];
      if (value === '') this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    const text = await response.text();
    const location = response.headers.get('location') ?? refreshIn(text);
    return { status: response.status, location, headers: response.headers, text };
  }
}

const unescapeHtml = (text: string) =>
  text.replace(
    /&(amp|lt|gt|quot|#39);/g,
    (_, name: string) => ({ amp: '&', lt: '<', gt: '>', quot: '"' })[name] ?? "'",
  );

/** A verifier and its challenge (RFC 7636). */
export function newPkce(): { verifier: string; challenge: string } {
  const verifier = randomBytes(32).toString('base64url');
  return { verifier, challenge: createHash('sha256').update(verifier).digest('base64url') };
}

/** Posts a form, as applications do. */
export async function postForm(
  url: string,
  fields: Record<string, string | string[]>,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; body: Record<string, unknown> }> {
  const body = new URLSearchParams();
  for (const [name, value] of Object.entries(fields))
    for (const each of [value].flat()) body.append(name, each);
  const response = await fetch(url, { method: 'POST', body, headers });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

export const basic = (id: string, secret: string) => ({
  Authorization: `Basic ${Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`).toString('base64')}`,
});
