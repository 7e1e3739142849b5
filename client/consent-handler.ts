/**
 * What `oauthConsentHandler` of all frameworks shares: the application's own consent page asks its own origin what an
 * OAuth application wants, and says what the user decided. Who the user is, only the application's backend says.
 */
import { CountersignError } from '../server/errors.ts';
import { isRecord } from './answers.ts';
import {
  createCallServer,
  createPageHandler,
  dataIn,
  type PageAnswer,
  type PageHandlerOptions,
  type PageRequest,
  result,
  toAnswer,
} from './page-requests.ts';

/** Who is signed in to the application, as `interactions.complete` takes it. */
export interface ConsentUser {
  /** What tokens call them, such as `user_42`. */
  subject: string;
  /** For ID tokens and userinfo. */
  claims?:
    | {
        name?: string;
        email?: string;
        email_verified?: boolean;
        preferred_username?: string;
        picture?: string;
        given_name?: string;
        family_name?: string;
      }
    | undefined;
  /** Those they may choose from; without any, they act for themselves. */
  organizations?: readonly { id: string; name: string }[] | undefined;
  /**
   * When they signed in, in milliseconds since 1970-01-01 UTC. Without it they count as signed in just now, and a request
   * that wants a fresh sign-in (`prompt=login`, `max_age`) is refused with `invalid_input`.
   */
  authTime?: number | undefined;
}

export interface OAuthConsentHandlerOptions<R> extends PageHandlerOptions {
  /**
   * Who a request comes from, by the application's own login; null for nobody, who is answered 401. The secret key needs
   * the role `interaction`.
   */
  resolveUser: (request: R) => ConsentUser | null | Promise<ConsentUser | null>;
}

const PROCEDURES = /\/(oauthConsent\.(?:get|allow|deny))$/;

const INTERACTION_ID = /^int_[0-9A-Za-z]{27}$/;

/** What the page sends. */
interface Decision {
  id: string;
  /** Those that the user was shown; null where they were asked for nothing, and only who they are is said. */
  scopes: string[] | null;
  organizationId: string | null;
}

/** Never rejects: what cannot be passed on is answered in the words of an error. */
export function createConsentHandler<R>(
  options: OAuthConsentHandlerOptions<R>,
): (asked: PageRequest<R>) => Promise<PageAnswer> {
  const call = createCallServer(options);

  async function get({ id }: Decision, user: ConsentUser): Promise<PageAnswer> {
    const reply = await call('interactions.get', JSON.stringify({ id }));
    const interaction = dataIn(reply);
    if (interaction === null) return toAnswer(reply);
    const { subject, claims, organizations = [] } = user;
    return result({ ...interaction, user: { name: claims?.name ?? subject, organizations } });
  }

  async function allow({ id, scopes, organizationId }: Decision, user: ConsentUser): Promise<PageAnswer> {
    const { subject, claims, organizations = [], authTime } = user;
    if (organizationId !== null && !organizations.some((each) => each.id === organizationId))
      throw new CountersignError('forbidden', 'Wanted one of the organizations of who is signed in');
    const completed = {
      id,
      subject,
      claims,
      organizations,
      authTime,
      ...(scopes !== null && { consent: { scopes, organizationId } }),
    };
    return toAnswer(await call('interactions.complete', JSON.stringify(completed)));
  }

  const deny = async ({ id }: Decision): Promise<PageAnswer> =>
    toAnswer(await call('interactions.deny', JSON.stringify({ id, error: 'access_denied' })));

  const verbs: Record<string, (decision: Decision, user: ConsentUser) => Promise<PageAnswer>> = {
    'oauthConsent.get': get,
    'oauthConsent.allow': allow,
    'oauthConsent.deny': deny,
  };

  return createPageHandler<R>(options, PROCEDURES, async (procedure, asked) => {
    const user = await options.resolveUser(asked.request);
    if (!user) throw new CountersignError('unauthenticated', 'Nobody is signed in');
    const decision = decisionIn(await asked.body());
    const decide = verbs[procedure];
    if (!decide) throw new CountersignError('not_found', 'Nothing has this path');
    return decide(decision, user);
  });
}

/** Of what the page sends nothing is passed on that was not looked at: it says what was decided, and never who decided. */
function decisionIn(text: string): Decision {
  const body = text === '' ? {} : jsonIn(text);
  const { id, scopes = null, organizationId = null } = isRecord(body) ? body : {};
  if (typeof id !== 'string' || !INTERACTION_ID.test(id))
    throw new CountersignError('not_found', 'No interaction has this id');
  if (scopes !== null && !areTexts(scopes))
    throw new CountersignError('malformed_json', "Wanted 'scopes' to be a list of texts");
  if (organizationId !== null && typeof organizationId !== 'string')
    throw new CountersignError('malformed_json', "Wanted 'organizationId' to be a text");
  return { id, scopes, organizationId };
}

const areTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new CountersignError('malformed_json', 'Wanted a body of JSON');
  }
}
