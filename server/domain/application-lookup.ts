/** Which application a client id names, wherever it comes from. */
import type { Deps } from '../deps.ts';
import { type Asking, findDocumentApplication, isDocumentUrl } from './client-metadata-documents.ts';
import { type ApplicationRow, couldBeClientId, readApplicationByClientId } from './oauth-applications.ts';

/** Null for one that nobody registered, and whose document lets it in nowhere. */
export async function findApplication(
  deps: Deps,
  clientId: string,
  asking: Asking,
): Promise<ApplicationRow | null> {
  if (!couldBeClientId(clientId)) return null;
  if (isDocumentUrl(clientId)) return findDocumentApplication(deps, clientId, asking);
  const [row] = await readApplicationByClientId(deps.store.read, { clientId });
  return row ?? null;
}
