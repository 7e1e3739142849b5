/** The API keys that are verified. */
import type { Inputs } from '../client/index.ts';
import { CREDENTIALS } from './floors/floor.ts';
import type { MeasuredServer } from './processes.ts';

/** What all of them have: two scopes, and a rate limit that is never reached. */
export const COMMON = {
  scopes: ['read', 'write'],
  rateLimit: { count: 1_000_000_000, windowSeconds: 60 },
} satisfies Partial<Inputs['apiKeys']['create']>;

/** As many as travel in one request of the client. More at once would wait for PostgreSQL longer than it lets them. */
const AT_ONCE = 50;

/** Creates them, each with a subject of its own; answers their values. */
export async function createKeys({ admin }: MeasuredServer): Promise<string[]> {
  const create = (i: number) => admin.apiKeys.create({ name: `key ${i}`, subject: `user_${i}`, ...COMMON });
  const values: string[] = [];
  while (values.length < CREDENTIALS) {
    const size = Math.min(AT_ONCE, CREDENTIALS - values.length);
    const keys = await Promise.all(Array.from({ length: size }, (_, i) => create(values.length + i)));
    values.push(...keys.map(({ secret = '' }) => secret));
  }
  return values;
}

/** What the server answers to one of these keys, which is valid. */
export async function answerTo({ admin }: MeasuredServer, keys: readonly string[]): Promise<unknown> {
  const answer = await admin.verify({ credential: keys[0] ?? '' });
  if (!answer.valid) throw new Error(`Wanted a valid key, found ${JSON.stringify(answer)}`);
  return answer;
}
