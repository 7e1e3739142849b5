import {
  type RefusedCredential,
  type ValidCredential,
  VERIFY_REASONS,
  type VerifyInput,
  type VerifyReason,
} from '../server/domain/credentials.ts';

type Kind = ValidCredential['kind'];
type Valid<K extends Kind> = Extract<ValidCredential, { kind: K }>;

// Each table names every field there is: with one too few or too many this file does not compile.

const REQUEST: Record<keyof VerifyInput, string> = {
  credential: 'The value as it was presented, without `Bearer`; at most 16,384 characters',
  kinds: 'The kinds that will do: `m2m_token`, `api_key`, `oauth_token`. Without it, all',
  scopes: 'Scopes the credential must have, every one',
  audience:
    'The machine an M2M token was presented to. With a secret key it is needed; a machine that asks is itself the audience',
  resource:
    'The resource an OAuth token was presented to, as a URL (RFC 8707). One that is for some resources needs it, and is good there alone',
  ip: "The end client's address, as the caller states it; a credential with a list of addresses needs it",
  cost: 'Credits that what is asked for costs, from 0 to 1,000,000. Without it, 1; only credentials with credits have any to spend',
  dpop: 'The proof of possession that came along, `{ proof, method, url }` (RFC 9449). No kind of credential asks for one yet',
};

const FIELDS: { [K in Kind]: Record<keyof Valid<K>, string> } = {
  m2m_token: {
    valid: '`true`',
    kind: '`m2m_token`',
    id: '`mt_…`; of a JWT, its `jti`',
    subject: 'the machine whose token it is',
    machineId: 'the same',
    audience: 'every machine it is for',
    scopes: 'of its scopes, those that the machine scope to the audience allows now',
    claims: 'as minted, or null',
    expiresAt: 'when it expires',
  },
  api_key: {
    valid: '`true`',
    kind: '`api_key`',
    id: '`ak_…` and 32 hex digits',
    subject: 'on whose behalf it acts: a user, an organization, or whatever it was created for',
    name: 'what it is called',
    scopes: 'what it may do',
    claims: 'as set, or null',
    expiresAt: 'when it expires, or null for never',
    rateLimit:
      'what is left of its limits, of several the scarcest: `{ count, windowSeconds, remaining }`; absent without any',
    creditsRemaining: 'what is left of its credits, of several the fewest; absent without any',
    boundToAddresses:
      '`true` if it is good from some addresses only, which `ip` is held against; else absent',
  },
  oauth_token: {
    valid: '`true`',
    kind: '`oauth_token`',
    id: '`oat_…` and 32 hex digits; of a JWT, its `jti`',
    subject: 'the user on whose behalf it acts; the client id, where the application acts for itself',
    clientId: 'what OAuth calls the application: its id, or the URL of its metadata document',
    applicationId: 'the application, `oauthapp_…`',
    applicationName: 'what the application is called',
    grantId: 'what the user allowed, `gnt_…`; absent where the application acts for itself',
    organizationId: 'the organization that the user chose; absent without one',
    scopes: 'what it may do',
    audience: 'the resources it is for; absent for none in particular',
    claims: 'null',
    expiresAt: 'when it expires',
  },
};

interface Reason {
  meaning: string;
  /** Who is told it, and whether with the credential's id and subject. */
  told: string;
}

const NAMELESS = 'every caller; never with id and subject';
const NAMED = 'every caller who may verify this credential, with id and subject';

const REASONS: Record<VerifyReason, Reason> = {
  malformed: {
    meaning: 'Not the form of any credential of ours: mistyped, cut off, made up',
    told: NAMELESS,
  },
  wrong_kind: {
    meaning:
      'A kind that was not asked for, or that this caller may not verify: secret keys and machine secret keys always; for a machine without `mayVerify`, all but M2M tokens',
    told: NAMELESS,
  },
  unknown: {
    meaning: 'It has the right form, and there is no such credential, or no longer',
    told: NAMELESS,
  },
  audience_required: {
    meaning:
      'An M2M token is judged for a machine, and the request names none; or an OAuth token is for some resources, and the request names no `resource`',
    told: 'who may verify this credential, but for machines of M2M tokens; with id and subject',
  },
  wrong_audience: {
    meaning:
      'The M2M token is not for this machine, or its machine may not call this one now; or the OAuth token is not for this resource',
    told: 'secret keys, with id and subject; to a machine it reads `unknown`',
  },
  revoked: {
    meaning:
      'It was revoked, by itself, with all of its machine, subject or application, with what its user allowed, or by a rotation that ended this value; or the key that signed it was retired in an emergency',
    told: NAMED,
  },
  disabled: { meaning: 'It, or whose it is, is disabled, and may be enabled again', told: NAMED },
  expired: { meaning: 'Its time is over, from the instant `expiresAt` on', told: NAMED },
  ip_not_allowed: {
    meaning: '`ip` is not among the addresses it may be used from, or was not stated',
    told: NAMED,
  },
  proof_required: {
    meaning: 'It is bound to a key, and no proof of that key came along. No kind of credential is, yet',
    told: NAMED,
  },
  insufficient_scope: { meaning: 'It lacks one of `scopes`', told: NAMED },
  rate_limited: {
    meaning: 'It was used too often; `retryAfterMs` says how long until it may be asked for again',
    told: `${NAMED}, and \`retryAfterMs\``,
  },
  out_of_credits: { meaning: 'It, or whose it is, has fewer credits left than `cost`', told: NAMED },
};

const VALID_M2M_TOKEN: Valid<'m2m_token'> = {
  valid: true,
  kind: 'm2m_token',
  id: 'mt_5f0c6b0e9a2d4c3b8e7f6a5d4c3b2a19',
  subject: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
  machineId: 'mch_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
  audience: ['mch_3aKQw7yHnR9pUc5MsEt1JgQdYbN'],
  scopes: ['entries:write'],
  claims: null,
  expiresAt: 1_767_704_400_000,
};

const VALID_API_KEY: Valid<'api_key'> = {
  valid: true,
  kind: 'api_key',
  id: 'ak_0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a',
  subject: 'user_42',
  name: 'export',
  scopes: ['invoices:read'],
  claims: { plan: 'pro' },
  expiresAt: null,
  rateLimit: { count: 100, windowSeconds: 60, remaining: 99 },
  creditsRemaining: 4_999,
  boundToAddresses: true,
};

const VALID_OAUTH_TOKEN: Valid<'oauth_token'> = {
  valid: true,
  kind: 'oauth_token',
  id: 'oat_019b1f0c6b0e9a2d4c3b8e7f6a5d4c3b',
  subject: 'user_42',
  clientId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
  applicationId: 'oauthapp_2vYJw4xGkQ8nTb6LrDs0HfPcZaM',
  applicationName: 'Notes',
  grantId: 'gnt_3aKQw7yHnR9pUc5MsEt1JgQdYbN',
  organizationId: 'org_7',
  scopes: ['notes:read'],
  audience: ['https://notes.example.com/mcp'],
  claims: null,
  expiresAt: 1_767_704_400_000,
};

const REFUSED: RefusedCredential = {
  valid: false,
  reason: 'rate_limited',
  id: VALID_API_KEY.id,
  subject: VALID_API_KEY.subject,
  retryAfterMs: 1_200,
};

const KINDS = Object.keys(FIELDS) as Kind[];

/** The fields of an answer of this kind, whether it has them always or at times. */
export const fieldsOf = (kind: Kind): string[] => Object.keys(FIELDS[kind]);

const requestRows = Object.entries(REQUEST).map(([field, meaning]) => `| \`${field}\` | ${meaning} |`);

function fieldRows(): string[] {
  const fields = new Set(KINDS.flatMap(fieldsOf));
  return [...fields].map((field) => {
    const meanings = KINDS.map((kind) => (FIELDS[kind] as Record<string, string>)[field] ?? '–');
    return `| \`${field}\` | ${meanings.join(' | ')} |`;
  });
}

const reasonRows = VERIFY_REASONS.map(
  (reason) => `| \`${reason}\` | ${REASONS[reason].meaning} | ${REASONS[reason].told} |`,
);

const json = (value: unknown) => `\`\`\`json\n${JSON.stringify(value, null, 2)}\n\`\`\``;

/** `docs/verify.md`, from the types of the domain. */
export function verifyPage(): string {
  return `# Verify

<!-- Generated from scripts/verify-page.ts by \`npm run docs\`. -->

Is this credential valid right now, whom does it stand for, and what may it do? \`POST /v1/verify\` answers for one,
\`POST /v1/verify/batch\` with \`{ "items": [...] }\` for up to 100, in their order. The typed client calls them
\`verify\` and \`verifyBatch\`; over tRPC they are \`credentials.verify\` and \`credentials.verifyBatch\`. Of OAuth access tokens
alone \`POST /v1/oauth_tokens/verify\` and \`oauthTokens.verify\` answer the same, without \`kinds\`.

An invalid credential is an answer, with status 200. What is refused with an [error](errors.md) is the request: its
caller, its form, its size (16 KB; 1 MB for a batch).

Who may ask: secret keys of the roles \`admin\` and \`verify\`; and machines, by their own secret, about M2M tokens that are
addressed to them and, where an administrator set \`mayVerify\`, about the other kinds. Who has only the JWKS reads a
[status list](status-list.md) instead.

## The request

| field | |
| --- | --- |
${requestRows.join('\n')}

\`credential\` alone is required. A field that is not in this table is refused.

## Valid

All instants are milliseconds since 1970-01-01 UTC.

| field | ${KINDS.map((kind) => `\`${kind}\``).join(' | ')} |
| --- | ${KINDS.map(() => '---').join(' | ')} |
${fieldRows().join('\n')}

${json(VALID_M2M_TOKEN)}

${json(VALID_API_KEY)}

${json(VALID_OAUTH_TOKEN)}

## Not valid

\`{ valid: false, reason }\`, with \`id\` and \`subject\` where the credential is known and the caller may know it. The
reasons are a closed set, in this order: of several that hold, the first is told. One is taken from every limit, and \`cost\`
from the credits, only where nothing before speaks against it.

| reason | meaning | who is told |
| --- | --- | --- |
${reasonRows.join('\n')}

${json(REFUSED)}

## Examples

A machine asks about what it was presented, with its own secret:

\`\`\`sh
curl -s $URL/v1/verify -H "Authorization: Bearer $LEDGER" -H 'Content-Type: application/json' \\
  -d "{\\"credential\\":\\"$TOKEN\\",\\"kinds\\":[\\"m2m_token\\"],\\"scopes\\":[\\"entries:write\\"]}"
\`\`\`

A gateway asks about an API key, with a secret key of the role \`verify\`:

\`\`\`ts
const answer = await countersign.verify({ credential, kinds: ['api_key'], scopes: ['invoices:read'], ip: client.address, cost: 5 });
if (!answer.valid) return refuse(answer.reason === 'rate_limited' ? 429 : 401);
\`\`\`
`;
}
