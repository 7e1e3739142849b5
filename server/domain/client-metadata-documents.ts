/**
 * Client-id metadata documents (draft-ietf-oauth-client-id-metadata-document): applications whose client id is the URL at
 * which they say what they are.
 */
import { eq } from 'drizzle-orm';
import { LRUCache } from 'lru-cache';
import type { Caller, Deps } from '../deps.ts';
import type { Limit } from '../limits.ts';
import { type Outbound, type OutboundDocument, OutboundError } from '../outbound.ts';
import { networkOf } from './addresses.ts';
import { type ClientMetadata, readClientMetadata, scopesOfStranger } from './client-metadata.ts';
import { change } from './events.ts';
import {
  type ApplicationRow,
  couldBeClientId,
  createOauthApplicationInput,
  newApplication,
  readApplicationByClientId,
} from './oauth-applications.ts';
import { OauthError } from './oauth-errors.ts';
import { assertRoomForUnused, redirectHostsOf, UNUSED_MS } from './oauth-registrations.ts';
import { type OauthSettings, readOauthSettings } from './oauth-settings.ts';
import { takeOne } from './rate-limits.ts';
import { isLoopbackRedirectUri, redirectUriRefusal } from './redirect-uris.ts';
import type { Address } from './secrets.ts';

/** threats.md, outgoing requests. */
const BYTES_MAX = 5 * 1024;
const TIMEOUT_MS = 2_000;

/** Documents that are new here, asked for from one network. */
const PER_NETWORK: Limit = { count: 20, windowSeconds: 60 };
/** Requests that we send to one host, whoever has us send them. */
const PER_HOST: Limit = { count: 30, windowSeconds: 60 };

/** Why a URL can be no client id (the draft, section 3), as "wanted …", or null. Two spellings of one are two clients. */
export function clientIdRefusal(clientId: string): string | null {
  if (!couldBeClientId(clientId) || !URL.canParse(clientId)) return 'wanted a URL of printable ASCII';
  const url = new URL(clientId);
  if (url.protocol !== 'https:') return 'wanted https';
  if (url.port !== '') return 'wanted port 443';
  if (url.username !== '' || url.password !== '') return 'wanted no user name or password';
  if (clientId.includes('#')) return 'wanted no fragment';
  if (url.pathname === '/') return 'wanted a path';
  return url.href === clientId ? null : `wanted its canonical form ${url.href}`;
}

export const isDocumentUrl = (clientId: string) => clientId.startsWith('https://');

/** Who says what the application is, to be shown to users; null where it is not of a document. */
export const documentHostOf = ({ client_id: clientId }: Pick<ApplicationRow, 'client_id'>): string | null =>
  isDocumentUrl(clientId) ? new URL(clientId).host : null;

/** What came of asking for a document. */
type Fetched =
  | { outcome: 'found'; metadata: ClientMetadata; freshMs: number }
  /** There is none, or not one of a client. */
  | { outcome: 'refused' }
  /** Its host did not answer in time, or could not just now. */
  | { outcome: 'unanswered' };

/** Asks for documents: for those who want the same at the same time, once. */
export interface ClientDocuments {
  fetch(url: string): Promise<Fetched>;
}

const REMEMBERED_MAX = 1_000;
/** What came to nothing is not asked for again so soon, whoever wants it. */
const FAILED_MS = 60_000;

export function createClientDocuments(
  outbound: Pick<Outbound, 'read'>,
  clock: () => number,
): ClientDocuments {
  const underWay = new Map<string, Promise<Fetched>>();
  const failed = new LRUCache<string, { fetched: Fetched; at: number }>({ max: REMEMBERED_MAX });

  async function ask(url: string): Promise<Fetched> {
    const fetched = await fetchDocument(outbound, url);
    if (fetched.outcome === 'found') failed.delete(url);
    else failed.set(url, { fetched, at: clock() });
    return fetched;
  }

  return {
    fetch(url) {
      const before = failed.get(url);
      if (before && clock() - before.at < FAILED_MS) return Promise.resolve(before.fetched);
      const begun = underWay.get(url) ?? ask(url).finally(() => underWay.delete(url));
      underWay.set(url, begun);
      return begun;
    },
  };
}

async function fetchDocument(outbound: Pick<Outbound, 'read'>, url: string): Promise<Fetched> {
  try {
    const document = await outbound.read(url, { bytesMax: BYTES_MAX, timeoutMs: TIMEOUT_MS });
    if (document.status === 429 || document.status >= 500) return { outcome: 'unanswered' };
    const metadata = document.status === 200 ? metadataOf(url, document.body) : null;
    return metadata ? { outcome: 'found', metadata, freshMs: freshMsOf(document) } : { outcome: 'refused' };
  } catch (error) {
    if (error instanceof OutboundError) return { outcome: 'unanswered' };
    throw error;
  }
}

/** Null for what is no document of this client (the draft, section 4). Of its redirect URIs those that may be are taken. */
function metadataOf(url: string, body: string): ClientMetadata | null {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json !== 'object' || json === null || !saysOfItself(url, json)) return null;
    const metadata = readClientMetadata(json);
    const redirectUris = metadata.redirectUris.filter((uri) => redirectUriRefusal(uri) === null);
    return redirectUris.length === 0 ? null : { ...metadata, redirectUris };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof OauthError) return null;
    throw error;
  }
}

/** That it names the URL it is at, and no secret: everybody reads it. One that proves itself by a key must not do without. */
function saysOfItself(url: string, json: object): boolean {
  const { client_id, client_secret, token_endpoint_auth_method } = json as Record<string, unknown>;
  return (
    client_id === url && client_secret === undefined && (token_endpoint_auth_method ?? 'none') === 'none'
  );
}

const FRESH_MS = 3_600_000;
/** Within these, whatever its server says: nobody is asked at every sign-in, and nothing stands for longer than a day. */
const FRESH_MS_MIN = 5 * 60_000;
const FRESH_MS_MAX = 24 * 3_600_000;

/** How long a document may be used without asking again (RFC 9111, section 4.2). */
export function freshMsOf({ headers }: Pick<OutboundDocument, 'headers'>): number {
  const said = lifetimeSecondsOf(headers);
  const ms = said === null ? FRESH_MS : said * 1000;
  return Math.min(FRESH_MS_MAX, Math.max(FRESH_MS_MIN, ms));
}

function lifetimeSecondsOf(headers: OutboundDocument['headers']): number | null {
  const directives = [headers['cache-control'] ?? '']
    .flat()
    .join(',')
    .toLowerCase()
    .split(/\s*,\s*/);
  if (directives.includes('no-store') || directives.includes('no-cache')) return 0;
  const age = Number(headers['age'] ?? 0) || 0;
  for (const name of ['s-maxage', 'max-age']) {
    const value = directives.find((directive) => directive.startsWith(`${name}=`))?.slice(name.length + 1);
    if (value !== undefined)
      return /^"?\d{1,10}"?$/.test(value) ? Number(value.replaceAll('"', '')) - age : 0;
  }
  if (headers['expires'] === undefined) return null;
  const [expires, date] = [headers['expires'], headers['date']].map((text) => Date.parse(String(text)));
  // A time that is none has passed (RFC 9111, section 5.3).
  return Number.isNaN(expires) || Number.isNaN(date) ? 0 : (Number(expires) - Number(date)) / 1000 - age;
}

/** The request that names a client. */
export interface Asking {
  address: Address;
  requestId: string;
}

/** How much longer what was known is used while its host does not answer. */
const STALE_MS_MAX = 24 * 3_600_000;

/**
 * The application whose metadata document is at a URL: as it is known and fresh, or as its document has it now. Null where
 * there is none, or none is let in. Throws `rate_limited`, and `temporarily_unavailable` where too many wait for a user.
 */
export async function findDocumentApplication(
  deps: Deps,
  clientId: string,
  asking: Asking,
): Promise<ApplicationRow | null> {
  if (clientIdRefusal(clientId) !== null) return null;
  const settings = await readOauthSettings(deps);
  if (settings.metadataDocuments === 'off') return null;
  const [known] = await readApplicationByClientId(deps.store.read, { clientId });
  if (known) return isUsable(deps, known) ? known : refresh(deps, settings, known, asking.requestId);
  if (settings.metadataDocuments === 'block') return null;
  return admit(deps, settings, clientId, asking);
}

/** One that is disabled stays so, whatever its document has become. */
const isUsable = ({ now }: Deps, row: ApplicationRow) =>
  !row.enabled || row.document_stale_at === null || row.document_stale_at > now();

/** Of several that come first at the same time one makes the application, and it is everybody's. */
async function admit(
  deps: Deps,
  settings: OauthSettings,
  clientId: string,
  { address, requestId }: Asking,
): Promise<ApplicationRow | null> {
  await takeOne(
    deps,
    `client_documents:${networkOf(address())}`,
    PER_NETWORK,
    `Wanted at most ${PER_NETWORK.count} clients in a minute from one network that are new here`,
  );
  await takeOne(
    deps,
    hostKey(clientId),
    PER_HOST,
    `Wanted at most ${PER_HOST.count} documents in a minute from one host`,
  );
  const fetched = await deps.clientDocuments.fetch(clientId);
  if (fetched.outcome !== 'found') return null;
  const row = await rowOf(deps, settings, clientId, fetched);
  return change(deps, callerOf(row, requestId), async (tx) => {
    await assertRoomForUnused(deps, tx);
    const { oauthApplications: a } = tx.tables;
    const inserted = await tx.db.insert(a).values(row).onConflictDoNothing().returning({ id: a.id });
    if (inserted.length === 0) {
      const [other] = await readApplicationByClientId(tx, { clientId });
      return { result: other ?? null, event: null };
    }
    return {
      result: row,
      event: {
        type: 'oauth_application.first_seen',
        objectId: row.id,
        data: { name: row.name, clientId, redirectHosts: redirectHostsOf(row.redirect_uris) },
      },
    };
  });
}

const hostKey = (clientId: string) => `client_document_host:${new URL(clientId).host}`;

const callerOf = ({ id }: ApplicationRow, requestId: string): Caller => ({
  principal: { kind: 'oauth_application', id },
  requestId,
});

async function rowOf(
  deps: Deps,
  settings: OauthSettings,
  clientId: string,
  { metadata, freshMs }: Extract<Fetched, { outcome: 'found' }>,
): Promise<ApplicationRow> {
  const now = deps.now();
  const input = createOauthApplicationInput.parse({
    name: nameIn(metadata, clientId),
    clientUri: metadata.clientUri,
    public: true,
    redirectUris: metadata.redirectUris,
    grantTypes: metadata.grantTypes,
    accessTokenFormat: settings.accessTokenFormat,
    ...(await scopesOfStranger(deps, metadata.scopes)),
  });
  return {
    ...newApplication(deps, 'metadata_document', input),
    client_id: clientId,
    document_stale_at: now + freshMs,
    unused_until: now + UNUSED_MS,
  };
}

const nameIn = ({ name }: ClientMetadata, clientId: string) => name ?? new URL(clientId).host;

/** A known one whose document is to be asked for again. While its host is silent it stays what it was, for a day. */
async function refresh(
  deps: Deps,
  settings: OauthSettings,
  known: ApplicationRow,
  requestId: string,
): Promise<ApplicationRow | null> {
  const { allowed } = await deps.limits.consume(hostKey(known.client_id), PER_HOST, 1);
  const fetched: Fetched = allowed
    ? await deps.clientDocuments.fetch(known.client_id)
    : { outcome: 'unanswered' };
  switch (fetched.outcome) {
    case 'refused':
      return null;
    case 'unanswered':
      return deps.now() < (known.document_stale_at ?? 0) + STALE_MS_MAX ? known : null;
    case 'found': {
      const redirectUris = redirectUrisNow(settings, known, fetched.metadata);
      return redirectUris.length === 0
        ? null
        : update(deps, known, { ...fetched, metadata: { ...fetched.metadata, redirectUris } }, requestId);
    }
  }
}

/**
 * Where it may have its users sent from now on. Under `first_seen` only to hosts that were there at first, to its own and
 * to the user's device: who takes over the place of a document does not get codes of those who trusted it before.
 */
function redirectUrisNow(
  { metadataDocuments }: OauthSettings,
  known: ApplicationRow,
  { redirectUris }: ClientMetadata,
): string[] {
  if (metadataDocuments === 'allow') return redirectUris;
  const hosts = new Set([new URL(known.client_id).host, ...redirectHostsOf(known.redirect_uris)]);
  return redirectUris.filter((uri) =>
    redirectHostsOf([uri]).some((host) => hosts.has(host) || isLoopbackRedirectUri(uri)),
  );
}

/** What its document may change of an application: an administrator's word on the rest stays. */
const FIELDS = { name: 'name', clientUri: 'client_uri', redirectUris: 'redirect_uris' } as const;

async function update(
  deps: Deps,
  known: ApplicationRow,
  { metadata, freshMs }: Extract<Fetched, { outcome: 'found' }>,
  requestId: string,
): Promise<ApplicationRow | null> {
  const now = deps.now();
  const said = { ...metadata, name: nameIn(metadata, known.client_id) };
  const changed = (Object.keys(FIELDS) as (keyof typeof FIELDS)[]).filter(
    (field) => JSON.stringify(said[field]) !== JSON.stringify(known[FIELDS[field]]),
  );
  const columns = Object.fromEntries(changed.map((field) => [FIELDS[field], said[field]]));
  return change(deps, callerOf(known, requestId), async (tx) => {
    const { oauthApplications: a } = tx.tables;
    const [row] = await tx.db
      .update(a)
      .set({ ...columns, document_stale_at: now + freshMs, ...(changed.length > 0 && { updated_at: now }) })
      .where(eq(a.id, known.id))
      .returning();
    const event = {
      type: 'oauth_application.updated' as const,
      objectId: known.id,
      data: { name: said.name, changed },
    };
    return { result: row ?? null, event: row && changed.length > 0 ? event : null };
  });
}
