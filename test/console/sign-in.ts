/** Signing in to a running server's console, as people do. */
import type { Opened } from '../support/browser.ts';
import type { RunningServer } from '../support/server.ts';

/** Opens a page below `/console` and signs in with the admin key. */
export async function signInAt({ page }: Opened, { url, adminKey }: RunningServer, path: string) {
  await page.goto(`${url}/console${path}`);
  await page.getByLabel('Secret key', { exact: true }).fill(adminKey);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/** What was asked of anybody but the server. */
export const foreignOf = ({ requests }: Opened, { url }: RunningServer) =>
  requests.filter((each) => !each.startsWith(url) && !each.startsWith('data:'));
