/** Grants in the database of a running server, as users who consented left them. */
import { join } from 'node:path';
import { openStore } from '../../db/store.ts';
import { insertGrant, type NewGrant } from '../../server/domain/oauth-grants.ts';
import type { RunningServer } from './server.ts';

/** Answers the ids, in the order given. */
export async function grantAt(
  { dataDir }: RunningServer,
  grants: readonly (Pick<NewGrant, 'subject'> & Partial<NewGrant> & { applicationId: string })[],
): Promise<string[]> {
  const store = await openStore({ location: join(dataDir, 'countersign.db') });
  try {
    return await store.tx(async (tx) => {
      const ids = [];
      for (const { applicationId, ...given } of grants) {
        const row = await insertGrant(tx, { now: Date.now }, { ...toGrant(applicationId), ...given });
        ids.push(row.id);
      }
      return ids;
    });
  } finally {
    await store.close();
  }
}

const toGrant = (id: string): Omit<NewGrant, 'subject'> => ({
  application: { id, token_generation: 0, refresh_token_max_seconds: null, unused_until: null },
  organizationId: null,
  scopes: ['openid', 'offline_access'],
  resources: [],
  redirectUri: 'https://app.example/callback',
  claims: {},
  authTime: Date.now(),
  nonce: null,
});
