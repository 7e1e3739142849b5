/** What the fields that several nouns share may hold. Every input has a limit, and control characters have no place. */
import { z } from 'zod';
import { CountersignError } from '../errors.ts';
import { isCanonicalCidr } from './addresses.ts';

const NAME_LENGTH_MAX = 255;
export const SCOPES_MAX = 100;
const CIDRS_MAX = 50;
export const CLAIMS_BYTES_MAX = 4096;
export const CLAIMS_DEPTH_MAX = 32;
/** Ten years, as Clerk has it. */
export const TTL_SECONDS_MAX = 315_360_000;

/** Names that belong to the token format, or that would change an object's prototype. */
export const RESERVED_CLAIMS: ReadonlySet<string> = new Set(
  'iss sub aud exp nbf iat jti scope scopes scp client_id act may_act cnf azp sid org_id status cat __proto__'.split(
    ' ',
  ),
);

/** Halves of surrogate pairs count as controls: no database keeps them as they were given. */
const withoutControls = (text: string) => !/[\p{Cc}\p{Cs}]/u.test(text);
const NO_CONTROLS = 'wanted no control characters';

const text = (lengthMax: number) => z.string().max(lengthMax).refine(withoutControls, NO_CONTROLS);

export const name = text(NAME_LENGTH_MAX)
  .min(1)
  .refine((value) => value.trim() === value, 'wanted no space at its beginning or end');

export const description = text(NAME_LENGTH_MAX);

/** On whose behalf a credential acts: any string, because other applications have other ids. */
export const subject = text(255).min(1);

export const machineId = z
  .string()
  .regex(/^mch_[0-9A-Za-z]{27}$/, 'wanted an id: mch_ and 27 letters or digits');
export const apiKeyId = z.string().regex(/^ak_[0-9a-f]{32}$/, 'wanted an id: ak_ and 32 hex digits');
export const m2mTokenId = z.string().regex(/^mt_[0-9a-f]{32}$/, 'wanted an id: mt_ and 32 hex digits');
export const secretKeyId = z.string().regex(/^sk_[0-9a-f]{32}$/, 'wanted an id: sk_ and 32 hex digits');
export const signingKeyId = z
  .string()
  .regex(/^key_[0-9A-Za-z]{27}$/, 'wanted an id: key_ and 27 letters or digits');
export const keyPolicyId = z
  .string()
  .regex(/^kp_[0-9A-Za-z]{27}$/, 'wanted an id: kp_ and 27 letters or digits');
export const webhookEndpointId = z
  .string()
  .regex(/^ep_[0-9A-Za-z]{27}$/, 'wanted an id: ep_ and 27 letters or digits');
export const statusListId = z
  .string()
  .regex(/^sl_[0-9A-Za-z]{27}$/, 'wanted an id: sl_ and 27 letters or digits');
export const operatorSessionId = z
  .string()
  .regex(/^ses_[0-9A-Za-z]{27}$/, 'wanted an id: ses_ and 27 letters or digits');
export const deliveryId = z
  .string()
  .regex(/^dlv_[0-9A-Za-z]{27}$/, 'wanted an id: dlv_ and 27 letters or digits');

export const oauthApplicationId = z
  .string()
  .regex(/^oauthapp_[0-9A-Za-z]{27}$/, 'wanted an id: oauthapp_ and 27 letters or digits');
export const oauthGrantId = z
  .string()
  .regex(/^gnt_[0-9A-Za-z]{27}$/, 'wanted an id: gnt_ and 27 letters or digits');
export const initialAccessTokenId = z
  .string()
  .regex(/^iat_[0-9A-Za-z]{27}$/, 'wanted an id: iat_ and 27 letters or digits');
export const oauthTokenId = z.string().regex(/^oat_[0-9a-f]{32}$/, 'wanted an id: oat_ and 32 hex digits');
export const userId = z
  .string()
  .regex(/^user_[0-9A-Za-z]{27}$/, 'wanted an id: user_ and 27 letters or digits');
export const userInvitationId = z
  .string()
  .regex(/^inv_[0-9A-Za-z]{27}$/, 'wanted an id: inv_ and 27 letters or digits');
export const userSessionId = z
  .string()
  .regex(/^uss_[0-9A-Za-z]{27}$/, 'wanted an id: uss_ and 27 letters or digits');

/** RFC 8707, section 2: an absolute URI without a fragment; here one over http or https. */
export const resourceUrl = z
  .url({ protocol: /^https?$/ })
  .max(2048)
  .refine(
    (url) => !url.includes('#') && /^[\x21-\x7e]+$/.test(url),
    'wanted a URL in ASCII without a fragment',
  );

/** A page of somebody else's that people are led to. */
export const homePageUrl = z.url({ protocol: /^https?$/ }).max(2048);

/** RFC 6749, section 3.3: printable ASCII without space, quote and backslash. */
export const scope = z
  .string()
  .max(128)
  .regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'wanted printable ASCII without space, quote or backslash');

export const scopes = z
  .array(scope)
  .max(SCOPES_MAX)
  .refine((list) => new Set(list).size === list.length, 'wanted each scope once');

const claimsRecord = z
  .record(z.string().min(1).max(128).refine(withoutControls, NO_CONTROLS), z.json())
  .refine(
    (value) => Buffer.byteLength(JSON.stringify(value)) <= CLAIMS_BYTES_MAX,
    `wanted at most ${CLAIMS_BYTES_MAX} bytes as JSON`,
  )
  .refine((value) => !JSON.stringify(value).includes('\\u0000'), 'wanted no NUL characters');

/**
 * Extra things a credential says: at most 4 KB as JSON. Throws `reserved_claim` for names of the token format, before
 * the record is parsed, because parsing drops `__proto__` without a word; and parsing recurses, so depth is bounded
 * before it too.
 */
export const claims = z.preprocess((given: z.input<typeof claimsRecord>, context) => {
  const reserved = Object.keys(given ?? {}).find((claim) => RESERVED_CLAIMS.has(claim));
  if (reserved !== undefined) {
    throw new CountersignError(
      'reserved_claim',
      `Cannot accept 'claims': the name '${reserved}' is reserved`,
      { field: 'claims' },
    );
  }
  if (isDeeperThan(given, CLAIMS_DEPTH_MAX)) {
    context.addIssue(`wanted at most ${CLAIMS_DEPTH_MAX} levels of nesting`);
    return z.NEVER;
  }
  if (namesPrototype(given)) {
    context.addIssue("wanted no field called '__proto__'");
    return z.NEVER;
  }
  return given;
}, claimsRecord);

/** A field that parsing would drop, at any depth: what was asked for is refused, never quietly changed. */
function namesPrototype(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.hasOwn(value, '__proto__') || Object.values(value).some(namesPrototype);
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(inner, levels - 1));
}

export const ttlSeconds = z.number().int().min(1).max(TTL_SECONDS_MAX);

/** An instant in milliseconds since 1970-01-01 UTC. */
export const instant = z.number().int().min(0).max(8_640_000_000_000_000);

/** When a credential stops being accepted: an instant in the future or, instead, a time from now. Neither means never. */
export const expiryInput = {
  expiresAt: instant.nullish(),
  ttlSeconds: ttlSeconds.optional(),
};

/** The instant that an input of `expiryInput` means, or null for never; `noun` is what cannot be saved. */
export function expiryOf(
  noun: string,
  now: number,
  given: { expiresAt?: number | null | undefined; ttlSeconds?: number | undefined },
): number | null {
  const { expiresAt = null } = given;
  if (given.ttlSeconds === undefined) {
    if (expiresAt !== null) assertFuture(noun, now, expiresAt);
    return expiresAt;
  }
  if (expiresAt === null) return now + given.ttlSeconds * 1000;
  throw new CountersignError(
    'invalid_input',
    `Cannot save ${noun}: wanted one of 'expiresAt' and 'ttlSeconds', found both`,
    { field: 'ttlSeconds' },
  );
}

/** Throws `invalid_input` for an expiry that is now or past. */
export function assertFuture(noun: string, now: number, expiresAt: number): void {
  if (expiresAt > now) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot save ${noun}: 'expiresAt' must be after ${now}, got ${expiresAt}`,
    { field: 'expiresAt' },
  );
}

/** CIDR blocks; each in the one form in which its address is written, with no bits set beyond its length. */
export const cidrs = z
  .array(
    z.string().max(49).refine(isCanonicalCidr, 'wanted a CIDR block in canonical form, such as 192.0.2.0/24'),
  )
  .min(1)
  .max(CIDRS_MAX)
  .refine((list) => new Set(list).size === list.length, 'wanted each block once');

/** Any credential as a caller pastes it. */
export const credential = z.string().min(1).max(16_384);
