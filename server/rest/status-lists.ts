/** Status lists as draft-ietf-oauth-status-list has them on the wire, with our addition `next`. */
import type { Deps } from '../deps.ts';
import { listStatusLists } from '../domain/status-lists.ts';

/** A list as a compact JWT (section 8.2); throws `not_found`. There is no other form, whatever is accepted. */
export async function getStatusList(
  deps: Deps,
  id: string,
): Promise<{ body: string; type: string; etag: string }> {
  const { jwt, etag } = await deps.statusLists.find(deps, id);
  return { body: jwt, type: 'application/statuslist+jwt', etag };
}

/** Section 9.3. Where there are more, `next` is the URI of the next page. */
export async function getStatusLists(
  deps: Deps,
  query: URLSearchParams,
): Promise<{ status_lists: string[]; next?: string }> {
  const { uris, next } = await listStatusLists(deps, query.get('after'));
  return { status_lists: uris, ...(next !== null && { next }) };
}
