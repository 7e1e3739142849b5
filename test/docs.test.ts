import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { errorsPage } from '../scripts/errors-page.ts';

it('docs/errors.md lists the codes of server/errors.ts: `npm run docs` writes it', () => {
  expect(readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')).toBe(errorsPage());
});
