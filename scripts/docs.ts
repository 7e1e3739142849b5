/** Writes the pages that are generated from tables in the code. */
import { writeFileSync } from 'node:fs';
import { errorsPage } from './errors-page.ts';
import { eventsPage } from './events-page.ts';
import { verifyPage } from './verify-page.ts';

writeFileSync(new URL('../docs/errors.md', import.meta.url), errorsPage());
writeFileSync(new URL('../docs/events.md', import.meta.url), eventsPage());
writeFileSync(new URL('../docs/verify.md', import.meta.url), verifyPage());
