import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { build } from '../support/server.ts';

const CONSOLE = fileURLToPath(new URL('../../dist/console/', import.meta.url));

/** What the first page loads before it shows anything; the pages themselves come when they are opened. */
const SCRIPTS_BYTES_MAX = 300 * 1024;

it('the console begins with at most 300 KB of script, as it is sent', { timeout: 120_000 }, async () => {
  await build();
  const page = readFileSync(join(CONSOLE, 'index.html'), 'utf8');
  const scripts = [...page.matchAll(/"\/console\/(assets\/[^"]+\.js)"/g)].map(([, path = '']) => path);
  expect(scripts.length).toBeGreaterThan(0);
  const bytes = scripts.map((path) => gzipSync(readFileSync(join(CONSOLE, path))).length);
  expect(bytes.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(SCRIPTS_BYTES_MAX);
});
