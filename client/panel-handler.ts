/**
 * What `apiKeysHandler` of all frameworks shares: the panel asks its own origin, by whatever login there is, and the
 * application's backend passes that on with a panel token of the one who asks.
 */

import { PREFIXES } from '../server/crypto/format.ts';
import { CountersignError } from '../server/errors.ts';
import { jsonOf } from './answers.ts';
import {
  createCallServer,
  createPageHandler,
  dataIn,
  failureIn,
  type PageAnswer,
  type PageHandlerOptions,
  type PageRequest,
  toAnswer,
} from './page-requests.ts';
import type { Reply } from './transport.ts';

/** Who is asking, and what they may: as `panelTokens.create` takes it. */
export interface PanelGrant {
  /** Whose API keys: a user, or the organization that they act for. */
  subject: string;
  /** Who sits in front of the page, where that is not the subject itself. Connected applications are always theirs. */
  createdBy?: string | undefined;
  actions: readonly ('read' | 'create' | 'update' | 'rotate' | 'revoke' | 'read_grants' | 'revoke_grants')[];
  /** The scopes that a key may be given; null for those its policy allows. Without it, none. */
  scopeCeiling?: readonly string[] | null | undefined;
  /** What keys are created under; without it the default policy, if there is one. */
  policyId?: string | undefined;
}

export interface ApiKeysHandlerOptions<R> extends PageHandlerOptions {
  /**
   * Whose API keys a request is about, by the application's own login; null for nobody, who is answered 401. The secret
   * key needs the role `interaction`.
   */
  resolveSubject: (request: R) => PanelGrant | null | Promise<PanelGrant | null>;
}

/** What a panel may ask for; nothing else is passed on. */
const PROCEDURES =
  /\/(panelKeys\.(?:options|list|create|update|rotate|completeRotation|revoke|usage)|panelGrants\.(?:list|revoke))$/;

const TTL_SECONDS = 600;
/** A token is used for so much of its life; what is left is for requests on their way. */
const USED_MS = TTL_SECONDS * 1000 * 0.8;
const TOKENS_MAX = 10_000;

/** Never rejects: what cannot be passed on is answered in the words of an error. */
export function createPanelHandler<R>(
  options: ApiKeysHandlerOptions<R>,
): (asked: PageRequest<R>) => Promise<PageAnswer> {
  const call = createCallServer(options);
  const tokens = createPanelTokens((body) => call('panelTokens.create', body));

  return createPageHandler<R>(options, PROCEDURES, async (procedure, asked) => {
    const grant = await options.resolveSubject(asked.request);
    if (!grant) throw new CountersignError('unauthenticated', 'Nobody is signed in');
    const body = await asked.body();
    const passOn = async () => call(procedure, body, await tokens.get(grant));
    const reply = await passOn();
    // A token that ended before its time, as with a key that was rotated, is replaced once.
    if (reply.status !== 401) return toAnswer(reply);
    tokens.forget(grant);
    return toAnswer(await passOn());
  });
}

/** One token for all who may the same, kept in memory alone and made anew before it expires. */
function createPanelTokens(mint: (body: string) => Promise<Reply>) {
  const held = new Map<string, { token: Promise<string>; until: number }>();

  function add(key: string): Promise<string> {
    const [oldest] = held.keys();
    if (held.size >= TOKENS_MAX && oldest !== undefined) held.delete(oldest);
    const token = mint(key).then(tokenIn, notMinted);
    held.set(key, { token, until: performance.now() + USED_MS });
    token.catch(() => held.delete(key));
    return token;
  }

  return {
    get(grant: PanelGrant): Promise<string> {
      const key = inputOf(grant);
      const known = held.get(key);
      if (known && performance.now() < known.until) return known.token;
      held.delete(key);
      return add(key);
    },
    forget: (grant: PanelGrant) => held.delete(inputOf(grant)),
  };
}

const inputOf = ({ subject, createdBy, actions, scopeCeiling, policyId }: PanelGrant) =>
  JSON.stringify({ subject, createdBy, actions, scopeCeiling, policyId, ttlSeconds: TTL_SECONDS });

function tokenIn(reply: Reply): string {
  const token = dataIn(reply)?.['token'];
  if (typeof token === 'string' && token.startsWith(PREFIXES.panelToken)) return token;
  return notMinted(failureIn(reply.status, jsonOf(reply)));
}

/** Why the application's own key may not is for its log, and not for who sits in front of the page. */
function notMinted(cause: unknown): never {
  throw new CountersignError('unavailable', 'Cannot mint a panel token', { cause });
}
