/** Which application a client id names, wherever it comes from. */
import { eq, getTableColumns, placeholder } from 'drizzle-orm';
import { flatStatement } from '../../db/statement.ts';
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
  const [row] = await readApplication(deps.store.read, { clientId });
  return row ?? null;
}

const readApplication = flatStatement<{ clientId: string }, ApplicationRow>(
  'oauth_application_by_client_id',
  (db, { oauthApplications: a }) => {
    const fields = getTableColumns(a);
    const query = db
      .select(fields)
      .from(a)
      .where(eq(a.client_id, placeholder('clientId')));
    return { fields, query };
  },
);
