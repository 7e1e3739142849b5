/** `countersign/verifier`: verifies from memory, and is told by the server's feed of whatever makes that wrong. */
import { hash } from 'node:crypto';
import { type CredentialKind, looksLikeJwt, PREFIXES, parseValue } from '../server/crypto/format.ts';
import { isAmongResources } from '../server/domain/resources.ts';
import { CountersignError } from '../server/errors.ts';
import { isRecord } from './answers.ts';
import type { VerifyInput, VerifyResult } from './countersign.ts';
import { type CallFast, createCallFast, createVerifyCalls } from './fast-calls.ts';
import { authorizationOf, type CountersignOptions, serverUrl, wholeNumber } from './options.ts';
import { createPost, postBy } from './transport.ts';
import { type AccessJwt, readAccessJwt } from './verifier/access-jwts.ts';
import { Applications } from './verifier/applications.ts';
import { Feed } from './verifier/feed.ts';
import { InForce } from './verifier/in-force.ts';
import { Jwks } from './verifier/jwks.ts';
import { isSignedBy } from './verifier/jws.ts';
import { type M2mJwt, readM2mJwt } from './verifier/m2m-jwts.ts';
import { Memory, namesOf, type Remembered } from './verifier/memory.ts';
import { isPaid, Questions } from './verifier/questions.ts';
import { namesIn, Told } from './verifier/told.ts';
import { UnknownValues } from './verifier/unknown-values.ts';
import { Usage, type UsageReport } from './verifier/usage.ts';

export type { VerifyResult } from './countersign.ts';

export interface VerifierOptions
  extends Pick<CountersignOptions, 'url' | 'secretKey' | 'machineSecretKey' | 'fetch'> {
  /** The machine that M2M tokens are presented to. Needed for them with a secret key; a machine is it itself. */
  audience?: string | undefined;
  /** The resource that OAuth tokens are presented to (RFC 8707). Needed for those that are for some resources only. */
  resource?: string | undefined;
  /** Limit of a request to the server, with the one that is sent again. Default 2000. */
  timeoutMs?: number | undefined;
  /** Valid answers remembered at most; a tenth as many invalid ones beside them. Default 100,000. */
  rememberMax?: number | undefined;
  /** Remembers also what has rate limits, credits or an address rule, which then are not counted or asked for each time. Default false. */
  rememberLimited?: boolean | undefined;
  /**
   * What to do where the server cannot be asked. `refuse`, the default, throws. `stale` answers from memory what it last
   * knew for sure within `staleMsMax`, and throws after that: a revocation then may take so long to be heard of.
   */
  onUnavailable?: 'refuse' | 'stale' | undefined;
  /** Needed with `stale`: at most so long after memory could last be trusted, up to 3,600,000. */
  staleMsMax?: number | undefined;
  /** Values that nobody knows looked up in a minute for one `clientAddress`. Default 600. */
  unknownPerMinuteMax?: number | undefined;
  /** Told of what happens, for metrics. What it throws is ignored. */
  onEvent?: ((event: VerifierEvent) => void) | undefined;
}

export type VerifierEvent =
  /** An answer, and where it came from: `local` was judged without asking and not remembered. */
  | { type: 'verified'; from: 'memory' | 'local' | 'server' | 'stale'; outcome: 'valid' | InvalidReason }
  /** A request to the server, for so many credentials; with what went wrong, if something did. */
  | { type: 'asked'; items: number; ms: number; error?: unknown }
  /** The connection to the feed. */
  | { type: 'feed'; state: 'open' | 'closed'; error?: unknown }
  /** All of memory was dropped, because the server's database is another. */
  | { type: 'reset' };

type InvalidReason = Extract<VerifyResult, { valid: false }>['reason'];

/** As for `POST /v1/verify` (docs/verify.md), but for what is not in it. */
export interface VerifyOptions extends Omit<VerifyInput, 'credential'> {
  /** Whose request it is: whoever sends made-up values is limited without the others. Not told to the server. */
  clientAddress?: string | undefined;
}

export interface Verifier {
  /**
   * Judges one credential. Answers are shared and frozen. Throws a `CountersignError` where it cannot tell: what throws is
   * never to be taken for valid.
   */
  verify(value: string, options?: VerifyOptions): Promise<VerifyResult>;
  /** Whether answers come from memory now, and how many are remembered. */
  status(): { trusted: boolean; remembered: number };
  /** Reports what was counted, and ends its connections. */
  close(): Promise<void>;
}

const TIMEOUT_MS = 2_000;
const TIMEOUT_MS_MAX = 60_000;
const RETRIES = 1;
const REMEMBERED = 100_000;
const REMEMBERED_MAX = 10_000_000;
const STALE_MS_MAX = 3_600_000;
const UNKNOWN_PER_MINUTE = 600;
const UNKNOWN_PER_MINUTE_MAX = 1_000_000;
const VALUE_LENGTH_MAX = 16_384;

const MALFORMED = Object.freeze({ valid: false, reason: 'malformed' }) as VerifyResult;
const WRONG_KIND = Object.freeze({ valid: false, reason: 'wrong_kind' }) as VerifyResult;
const UNKNOWN = Object.freeze({ valid: false, reason: 'unknown' }) as VerifyResult;

/**
 * A verifier for one secret key of the role `verify` or `admin`, or one machine's secret. It connects at once, and works
 * while the server is down from the moment it is up. Close it in the end. Throws `invalid_input` for options that are
 * not as wanted.
 */
export function createVerifier(options: VerifierOptions = {}): Verifier {
  return new RememberingVerifier(options);
}

/** What is asked of the server: with the JWT that the value is, if it is one. */
interface Asked {
  options: VerifyOptions;
  jwt: TokenJwt | null;
}

type TokenJwt = M2mJwt | AccessJwt;
type ValidResult = Extract<VerifyResult, { valid: true }>;

class RememberingVerifier implements Verifier {
  readonly #audience: string | undefined;
  readonly #resource: string | undefined;
  readonly #isMachine: boolean;
  readonly #rememberLimited: boolean;
  readonly #staleMsMax: number;
  readonly #onEvent: VerifierOptions['onEvent'];
  readonly #told = new Told();
  readonly #inForce = new InForce();
  readonly #applications = new Applications(this.#told);
  readonly #memory: Memory;
  readonly #jwks: Jwks;
  readonly #questions: Questions;
  readonly #unknown: UnknownValues;
  readonly #usage: Usage;
  readonly #feed: Feed;
  readonly #readOwnId: () => Promise<string | undefined>;
  /** Counts databases: what was asked of one says nothing of the next. */
  #generation = 0;
  /** What the server accepts as `iss`, learnt from a JWT that it accepted. */
  #issuer: string | undefined;
  #ownId: string | undefined;
  #hasImportedKeys = true;
  #isClosed = false;

  constructor(options: VerifierOptions) {
    const base = serverUrl(options.url);
    const authorization = authorizationOf(options);
    const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs ?? TIMEOUT_MS, 1, TIMEOUT_MS_MAX);
    const fetchLike = options.fetch ?? fetch;
    this.#staleMsMax = staleMsMaxOf(options);
    this.#isMachine =
      options.machineSecretKey !== undefined ||
      (options.secretKey === undefined && !authorization.startsWith(`Bearer ${PREFIXES.secretKey}`));
    this.#audience = options.audience;
    this.#resource = options.resource;
    this.#rememberLimited = options.rememberLimited ?? false;
    this.#onEvent = options.onEvent;
    this.#memory = new Memory(
      this.#told,
      wholeNumber('rememberMax', options.rememberMax ?? REMEMBERED, 1, REMEMBERED_MAX),
    );
    this.#unknown = new UnknownValues(
      wholeNumber(
        'unknownPerMinuteMax',
        options.unknownPerMinuteMax ?? UNKNOWN_PER_MINUTE,
        1,
        UNKNOWN_PER_MINUTE_MAX,
      ),
    );
    const send = options.fetch ? postBy(options.fetch) : createPost();
    const patience = { timeoutMs, retries: RETRIES };
    const callFast = createCallFast({ send, authorization: () => authorization, patience });
    this.#questions = new Questions({
      client: createVerifyCalls(base, callFast),
      onRequest: (request) => this.#tell({ type: 'asked', ...request }),
    });
    this.#jwks = new Jwks(base, fetchLike);
    this.#feed = new Feed({ base, authorization, fetch: fetchLike, listener: this.#listener() });
    this.#usage = new Usage({
      report: (report) => reportBy(callFast, new URL('v1/usage', base), report),
      now: () => this.#serverNow(),
    });
    this.#readOwnId = () => readOwnId(fetchLike, new URL('v1/machines/me', base), authorization, timeoutMs);
  }

  async verify(value: string, given: VerifyOptions = {}): Promise<VerifyResult> {
    const options = this.#completed(given);
    if (typeof value !== 'string' || value === '' || value.length > VALUE_LENGTH_MAX) return MALFORMED;
    const key = keyOf(value, this.#audienceOf(options));
    if (this.#isForAnother(options)) return this.#ask(value, key, { options, jwt: null });
    const known = this.#memory.get(key);
    if (known && this.#feed.isTrusted && this.#isUsable(known, options))
      return this.#answer('memory', this.#judge(known.answer, options), known.answer);
    return this.#verifyAnew(value, key, options);
  }

  status() {
    return { trusted: this.#feed.isTrusted, remembered: this.#memory.size };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.all([this.#feed.close(), this.#usage.close()]);
  }

  async #verifyAnew(value: string, key: string, options: VerifyOptions): Promise<VerifyResult> {
    if (this.#isClosed) throw new CountersignError('unavailable', 'Cannot verify: the verifier was closed');
    const refused = this.#refuseByForm(value, options);
    if (refused) return this.#answer('local', refused);
    const jwt = looksLikeJwt(value) ? (readM2mJwt(value) ?? readAccessJwt(value)) : null;
    const judged = jwt && (await this.#judgeLocally(jwt, key, options));
    if (judged) return judged;
    return this.#ask(value, key, { options, jwt });
  }

  /** What can be refused without any I/O. An imported value may have no checksum that could be wrong. */
  #refuseByForm(value: string, { kinds }: VerifyOptions): VerifyResult | null {
    const prefix = parseValue(value)?.prefix;
    if (prefix === undefined && !looksLikeJwt(value)) {
      const isOurs = RESERVED.some((reserved) => value.startsWith(reserved));
      return isOurs || (this.#feed.isTrusted && !this.#hasImportedKeys) ? MALFORMED : null;
    }
    if (prefix === undefined) return null;
    const kind = KINDS[prefix];
    if (kind === null || (kind !== undefined && kinds && !kinds.includes(kind))) return WRONG_KIND;
    return null;
  }

  /**
   * Judges a JWT that was not seen before by its signature and by what the feed told of its token, of what that hangs on and
   * of its key. Null where that is not all that the server would judge by.
   */
  async #judgeLocally(jwt: TokenJwt, key: string, options: VerifyOptions): Promise<VerifyResult | null> {
    if (options.kinds && !options.kinds.includes(jwt.kind)) return null;
    const mark = this.#told.mark;
    if (!this.#feed.isTrusted || this.#issuer === undefined) return null;
    const audience = this.#audienceOf(options);
    if (jwt.kind === 'm2m_token' && audience === undefined) return null;
    if (!this.#jwks.isComplete) await this.#jwks.refresh();
    if (!this.#jwks.isComplete || !this.#feed.isTrusted) return null;
    const publicKey = this.#jwks.get(jwt.kid);
    // To the server too the key is unknown: the feed would have told of it.
    if (!publicKey || !isSignedBy(jwt, publicKey)) return this.#answer('local', UNKNOWN);
    if (publicKey.isRetired || jwt.issuer !== this.#issuer) return null;
    if (jwt.expiresAt <= this.#feed.serverNow()) return null;
    const answer = jwt.kind === 'm2m_token' ? this.#m2mAnswer(jwt, audience) : this.#oauthAnswer(jwt);
    if (answer === null) return null;
    const names = namesOf(answer, audience, jwt.kid);
    this.#memory.set(key, { answer, isLimited: false, ip: undefined, names, mark });
    return this.#answer('local', this.#judge(answer, options), answer);
  }

  #m2mAnswer(jwt: M2mJwt, audience: string | undefined): ValidResult | null {
    if (audience === undefined || !jwt.audience.includes(audience)) return null;
    // For several it has the scopes of all their machine scopes together: which are for whom only the server knows.
    if (jwt.audience.length > 1 && jwt.scopes.length > 0) return null;
    const { id, machineId, kid, issuedAt } = jwt;
    if (this.#inForce.mayConcern({ id, machineId, audience, kid, issuedAt })) return null;
    return {
      valid: true,
      kind: 'm2m_token',
      id,
      subject: machineId,
      machineId,
      audience: jwt.audience,
      scopes: jwt.scopes,
      claims: jwt.claims,
      expiresAt: jwt.expiresAt,
    };
  }

  /** Of an application that the server once answered for: what it is called is in no JWT. */
  #oauthAnswer(jwt: AccessJwt): ValidResult | null {
    const application = this.#applications.get(jwt.clientId);
    if (!application) return null;
    const { id, subject, clientId, kid, issuedAt, grantId, organizationId, audience } = jwt;
    const { applicationId } = application;
    if (this.#inForce.mayConcern({ id, applicationId, subject, kid, issuedAt })) return null;
    return {
      valid: true,
      kind: 'oauth_token',
      id,
      subject,
      clientId,
      ...application,
      ...(grantId !== undefined && { grantId }),
      ...(organizationId !== undefined && { organizationId }),
      scopes: jwt.scopes,
      ...(audience && { audience }),
      claims: null,
      expiresAt: jwt.expiresAt,
    };
  }

  async #ask(value: string, key: string, asked: Asked): Promise<VerifyResult> {
    const { clientAddress } = asked.options;
    if (clientAddress === undefined) return this.#askServer(value, key, asked);
    const lookup = await this.#unknown.begin(clientAddress);
    if (typeof lookup === 'number')
      return this.#answer('local', { valid: false, reason: 'rate_limited', retryAfterMs: lookup });
    let isUnknown = false;
    try {
      const answer = await this.#askServer(value, key, asked);
      isUnknown = !answer.valid && UNKNOWN_REASONS.has(answer.reason);
      return answer;
    } finally {
      lookup.end(isUnknown);
    }
  }

  async #askServer(value: string, key: string, { options, jwt }: Asked): Promise<VerifyResult> {
    const { clientAddress: _, ...question } = options;
    const before = { generation: this.#generation, mark: this.#told.mark, isComplete: this.#feed.isComplete };
    const audience = this.#audienceOf(options);
    // A machine is the audience itself, whatever it knows of its own id.
    const input = {
      ...question,
      credential: value,
      ...(audience !== undefined && !this.#isMachine && { audience }),
    };
    let answer: VerifyResult;
    try {
      answer = await this.#questions.ask(input, this.#knowledge());
    } catch (error) {
      // Only now: while it was asked something may have been told.
      const known = this.#isForAnother(options) ? undefined : this.#memory.get(key);
      const isStale = known && this.#isUsableStale(known, options, error);
      if (isStale) return this.#answer('stale', this.#judge(known.answer, options), known.answer);
      throw error;
    }
    if (answer.valid && jwt && before.generation === this.#generation) this.#issuer = jwt.issuer;
    // Before the snapshot was complete nothing was told of what happened since, nor will it be.
    if (before.isComplete && before.generation === this.#generation && !this.#isForAnother(options)) {
      this.#remember(key, answer, { options, mark: before.mark, kid: jwt?.kid });
      if (answer.valid && answer.kind === 'oauth_token')
        this.#applications.learn(answer.clientId, answer, before.mark);
    }
    this.#tell({ type: 'verified', from: 'server', outcome: outcomeOf(answer) });
    return answer;
  }

  /** Only what does not depend on what was asked besides: of a key that lacks a scope it is not known what it has. */
  #remember(
    key: string,
    answer: VerifyResult,
    { options, mark, kid }: { options: VerifyOptions; mark: number; kid: string | undefined },
  ): void {
    if (!answer.valid && !LASTING_REASONS.has(answer.reason)) return;
    const isBound = answer.valid && answer.kind === 'api_key' && answer.boundToAddresses === true;
    const isLimited = isBound || isPaid(answer);
    if (isLimited && !this.#rememberLimited) return;
    const names = namesOf(answer, this.#audienceOf(options), kid);
    this.#memory.set(key, { answer, isLimited, ip: isBound ? options.ip : undefined, names, mark });
  }

  #isUsable({ answer, isLimited, ip }: Remembered, options: VerifyOptions): boolean {
    if (isLimited && ip !== undefined && ip !== options.ip) return false;
    if (options.dpop !== undefined) return false;
    if (!answer.valid) return options.kinds === undefined;
    return answer.expiresAt === null || this.#feed.serverNow() < answer.expiresAt;
  }

  #isUsableStale(known: Remembered, options: VerifyOptions, error: unknown): boolean {
    return (
      this.#staleMsMax > 0 &&
      error instanceof CountersignError &&
      UNAVAILABLE.has(error.code) &&
      this.#feed.isWithin(this.#staleMsMax) &&
      this.#isUsable(known, options)
    );
  }

  /** A machine that names another machine as the audience asks what only the server answers. */
  #isForAnother({ audience }: VerifyOptions): boolean {
    return this.#isMachine && audience !== undefined && audience !== this.#ownId;
  }

  /** All that was told by now; null while more may have happened than was told. */
  #knowledge(): string | null {
    return this.#feed.isTrusted ? `${this.#generation} ${this.#told.mark}` : null;
  }

  #completed(options: VerifyOptions): VerifyOptions {
    if (this.#resource === undefined || options.resource !== undefined) return options;
    return { ...options, resource: this.#resource };
  }

  #audienceOf({ audience }: VerifyOptions): string | undefined {
    if (this.#isMachine) return this.#ownId;
    return audience ?? this.#audience;
  }

  /** What was remembered, held against what is asked for now, in the order of precedence. */
  #judge(answer: VerifyResult, { kinds, scopes, resource }: VerifyOptions): VerifyResult {
    if (!answer.valid) return answer;
    if (kinds && !kinds.includes(answer.kind)) return WRONG_KIND;
    const reason = resourceReason(answer, resource);
    // As the server tells machines of what is not for them.
    if (reason === 'wrong_audience' && this.#isMachine) return UNKNOWN;
    if (reason !== null) return refusal(answer, reason);
    const lacksScope = scopes?.some((scope) => !answer.scopes.includes(scope));
    return lacksScope ? refusal(answer, 'insufficient_scope') : answer;
  }

  /** Counts what the server does not know of, as the server would: what is of another kind it does not look up. */
  #answer(
    from: 'memory' | 'local' | 'stale',
    answer: VerifyResult,
    counted: VerifyResult = answer,
  ): VerifyResult {
    if (counted.valid && answer !== WRONG_KIND) this.#usage.count(counted.kind, answer);
    if (this.#onEvent) this.#tell({ type: 'verified', from, outcome: outcomeOf(answer) });
    return answer;
  }

  #tell(event: VerifierEvent): void {
    try {
      this.#onEvent?.(event);
    } catch {
      // Metrics decide nothing.
    }
  }

  #serverNow(): number {
    const now = this.#feed.serverNow();
    return Number.isFinite(now) ? now : Date.now();
  }

  #listener(): ConstructorParameters<typeof Feed>[0]['listener'] {
    return {
      reset: () => {
        this.#generation++;
        this.#memory.clear();
        this.#inForce.clear();
        this.#applications.clear();
        this.#jwks.forget();
        this.#issuer = undefined;
        this.#tell({ type: 'reset' });
      },
      inForce: (item) => {
        this.#told.tell(namesIn(item));
        this.#inForce.take(item);
      },
      invalidated: (item) => {
        this.#told.tell(namesIn(item));
        this.#inForce.take(item);
        if (item.kind === 'api_key' && item.reason === 'created') this.#hasImportedKeys = true;
        if (Number.isFinite(this.#feed.serverNow())) this.#inForce.prune(this.#feed.serverNow());
      },
      signingKey: (state) => this.#jwks.told(state),
      begun: ({ hasImportedKeys }) => {
        this.#hasImportedKeys = hasImportedKeys;
        void this.#jwks.refresh();
        if (this.#isMachine) void this.#learnOwnId();
      },
      connection: (state, error) =>
        this.#tell({ type: 'feed', state, ...(error !== undefined && { error }) }),
    };
  }

  /** Without it, JWTs are asked for. */
  async #learnOwnId(): Promise<void> {
    this.#ownId = (await this.#readOwnId().catch(() => undefined)) ?? this.#ownId;
  }
}

/** What the prefix of a well-formed value says; null where `verify` answers for no such kind. */
const KINDS: Readonly<Record<string, CredentialKind | null>> = {
  [PREFIXES.m2mToken]: 'm2m_token',
  [PREFIXES.apiKey]: 'api_key',
  [PREFIXES.accessToken]: 'oauth_token',
  [PREFIXES.secretKey]: null,
  [PREFIXES.machineSecretKey]: null,
  [PREFIXES.refreshToken]: null,
  [PREFIXES.panelToken]: null,
};

/** Beginnings of values that nothing imported may have. */
const RESERVED: readonly string[] = Object.values(PREFIXES).filter((prefix) => prefix !== PREFIXES.apiKey);

const LASTING_REASONS: ReadonlySet<InvalidReason> = new Set([
  'malformed',
  'unknown',
  'revoked',
  'disabled',
  'expired',
]);
const UNKNOWN_REASONS: ReadonlySet<InvalidReason> = new Set(['malformed', 'unknown']);
const UNAVAILABLE: ReadonlySet<string> = new Set(['unavailable', 'timeout', 'network']);

/** By the whole of its hash: no value is kept, and none is taken for another. */
const keyOf = (value: string, audience: string | undefined): string =>
  `${hash('sha256', value, 'base64')}${audience ?? ''}`;

function resourceReason(answer: ValidResult, resource: string | undefined): InvalidReason | null {
  if (answer.kind !== 'oauth_token' || !answer.audience) return null;
  if (resource === undefined) return 'audience_required';
  return isAmongResources(resource, answer.audience) ? null : 'wrong_audience';
}

const refusal = ({ id, subject }: ValidResult, reason: InvalidReason): VerifyResult => ({
  valid: false,
  reason,
  id,
  subject,
});

const outcomeOf = (answer: VerifyResult) => (answer.valid ? 'valid' : answer.reason);

function staleMsMaxOf({ onUnavailable = 'refuse', staleMsMax }: VerifierOptions): number {
  if (onUnavailable === 'refuse') return 0;
  if (staleMsMax !== undefined) return wholeNumber('staleMsMax', staleMsMax, 1, STALE_MS_MAX);
  throw new CountersignError(
    'invalid_input',
    "Cannot create verifier: wanted 'staleMsMax' with onUnavailable 'stale', found none",
    { field: 'staleMsMax' },
  );
}

/** Sends a report. What the server refuses it would refuse again: that is dropped. */
async function reportBy(callFast: CallFast, url: URL, body: UsageReport): Promise<void> {
  const call = { name: 'usage.report', url, body, repeatable: true, read: (json: unknown) => json };
  try {
    await callFast(call, undefined);
  } catch (error) {
    const isRefused = error instanceof CountersignError && error.status >= 400 && error.status < 500;
    if (!isRefused || error.code === 'rate_limited') throw error;
  }
}

/** The id of the machine whose secret it is. */
async function readOwnId(
  fetchLike: typeof fetch,
  url: URL,
  authorization: string,
  timeoutMs: number,
): Promise<string | undefined> {
  const response = await fetchLike(url, {
    headers: { authorization },
    redirect: 'error',
    signal: AbortSignal.timeout(timeoutMs),
  });
  const machine: unknown = await response.json();
  return response.ok && isRecord(machine) && typeof machine['id'] === 'string' ? machine['id'] : undefined;
}
