/** The pages that people read, and the commands in them as they would be typed. */
import { readFileSync } from 'node:fs';

/** A page by its path from the root. */
export const readPage = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

/** What stands below a heading of the second order, up to the next one. */
export function sectionOf(page: string, heading: string): string {
  const [, section] = page.split(`\n## ${heading}\n`);
  if (section === undefined) throw new Error(`No section is called '${heading}'`);
  return section.split('\n## ')[0] ?? '';
}

/** The fenced blocks of one language, in their order. */
export const blocksOf = (text: string, language: string): string[] =>
  [...text.matchAll(/^```(\S+)\n([\s\S]*?)^```$/gm)]
    .filter(([, of]) => of === language)
    .map(([, , block = '']) => block);
