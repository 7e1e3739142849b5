/** Status lists as draft-ietf-oauth-status-list has them on the wire, with our addition `next`. */
import { z } from 'zod';
import type { Deps } from '../deps.ts';
import { statusListId } from '../domain/fields.ts';
import { listStatusLists } from '../domain/status-lists.ts';
import { hotRoute, type Route } from './route.ts';

const STATUS_LIST_TYPE = 'application/statuslist+jwt';

export const statusListRoutes: readonly Route[] = [
  hotRoute('GET /v1/status-lists', null, {
    summary: 'The URIs of status lists (draft-ietf-oauth-status-list, section 9.3)',
    input: z.strictObject({ after: statusListId.optional() }),
    output: z.object({ status_lists: z.array(z.string()), next: z.string().optional() }),
  }),
  hotRoute('GET /v1/status-lists/{id}', null, {
    summary: 'A status list (section 8.2)',
    type: STATUS_LIST_TYPE,
    input: z.strictObject({ id: statusListId }),
    output: z.string(),
  }),
];

/** A list as a compact JWT (section 8.2); throws `not_found`. There is no other form, whatever is accepted. */
export async function getStatusList(
  deps: Deps,
  id: string,
): Promise<{ body: string; type: string; etag: string }> {
  const { jwt, etag } = await deps.statusLists.find(deps, id);
  return { body: jwt, type: STATUS_LIST_TYPE, etag };
}

/** Section 9.3. Where there are more, `next` is the URI of the next page. */
export async function getStatusLists(
  deps: Deps,
  query: URLSearchParams,
): Promise<{ status_lists: string[]; next?: string }> {
  const { uris, next } = await listStatusLists(deps, query.get('after'));
  return { status_lists: uris, ...(next !== null && { next }) };
}
