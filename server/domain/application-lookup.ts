/** Which application a client id names, wherever it comes from. */
import { eq } from 'drizzle-orm';
import type { Deps } from '../deps.ts';
import { findDocumentApplication, isDocumentUrl } from './client-metadata-documents.ts';
import { type ApplicationRow, couldBeClientId } from './oauth-applications.ts';
import type { Address } from './secrets.ts';

/** Null for one that nobody registered, and whose document lets it in nowhere. */
export async function findApplication(
  deps: Deps,
  clientId: string,
  address: Address,
): Promise<ApplicationRow | null> {
  if (!couldBeClientId(clientId)) return null;
  if (isDocumentUrl(clientId)) return findDocumentApplication(deps, clientId, address);
  const { db, tables } = deps.store.read;
  const { oauthApplications: a } = tables;
  const [row] = await db.select().from(a).where(eq(a.client_id, clientId));
  return row ?? null;
}
