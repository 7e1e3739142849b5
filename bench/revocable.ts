/** API keys to be revoked, by the hundred, and the endpoints that are to hear of it. */
import { createHash, randomBytes } from 'node:crypto';
import type { MeasuredServer } from './processes.ts';
import { post } from './requests.ts';

const IMPORT_MAX = 1_000;

/** So many keys, made by an import of hashes; answers the requests that revoke one each. */
export async function revocations({ admin, adminKey }: MeasuredServer, count: number): Promise<Buffer[]> {
  const requests: Buffer[] = [];
  while (requests.length < count) {
    const size = Math.min(IMPORT_MAX, count - requests.length);
    const items = Array.from({ length: size }, () => {
      const value = randomBytes(32);
      const name = value.toString('hex', 0, 16);
      return { hash: createHash('sha256').update(value).digest('hex'), subject: `user_${name}`, name };
    });
    const { results } = await admin.apiKeys.import({ items });
    for (const result of results) {
      if (result.outcome !== 'imported') throw new Error(`Wanted a key, found ${JSON.stringify(result)}`);
      requests.push(post('/trpc/apiKeys.revoke', adminKey, { id: result.id }));
    }
  }
  return requests;
}

/** Endpoints that are told of revoked API keys, each under a path of its own. */
export async function createEndpoints({ admin }: MeasuredServer, receiverUrl: string, count: number) {
  for (let i = 0; i < count; i++)
    await admin.webhookEndpoints.create({ url: `${receiverUrl}/${i}`, eventTypes: ['api_key.revoked'] });
}

/** Lets a server send to loopback. */
export const TO_LOOPBACK = { COUNTERSIGN_WEBHOOK_ALLOW_SUBNETS: '127.0.0.0/8' };
