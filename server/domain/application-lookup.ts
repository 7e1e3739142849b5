/** Which application a client id names, wherever it comes from. */
import { eq } from 'drizzle-orm';
import type { Deps } from '../deps.ts';
import type { ApplicationRow } from './oauth-applications.ts';
import type { Address } from './secrets.ts';

/** Null for one that nobody registered. */
export async function findApplication(
  deps: Deps,
  clientId: string,
  _address: Address,
): Promise<ApplicationRow | null> {
  const { db, tables } = deps.store.read;
  const { oauthApplications: a } = tables;
  const [row] = await db.select().from(a).where(eq(a.client_id, clientId));
  return row ?? null;
}
