/** Revoking by value: whoever has found a token need not know what it is, nor whose. */
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { assertMayRevokeByValue } from './address-limits.ts';
import { credential, description, oauthApplicationId } from './fields.ts';
import { getOauthApplication } from './oauth-applications.ts';
import { revokeOauthGrant } from './oauth-grants.ts';
import { findOauthToken, revokeOauthToken } from './oauth-tokens.ts';
import type { Address } from './secrets.ts';

export const revokeOauthTokenByValueInput = z.strictObject({
  value: credential,
  reason: description.nullish(),
});

/**
 * Revokes the access token with this value, opaque or JWT, or the grant of the refresh token with it, and answers the same
 * whatever it found: whoever has a value learns nothing of it here. Throws `invalid_input` for a caller's own credential.
 */
export async function revokeOauthTokenByValue(
  deps: Deps,
  caller: Caller,
  address: Address,
  { value, reason }: z.output<typeof revokeOauthTokenByValueInput>,
): Promise<{ accepted: true }> {
  await assertMayRevokeByValue(deps, address);
  assertNoCaller(value);
  const found = await whatIs(deps, value);
  if (found?.tokenId !== undefined) await revokeOauthToken(deps, caller, { id: found.tokenId, reason });
  else if (found?.grantId) await revokeOauthGrant(deps, caller, { id: found.grantId, reason });
  return { accepted: true };
}

export const revokeTokenOfApplicationInput = z.strictObject({
  id: oauthApplicationId,
  token: credential,
});

/**
 * Clerk's way: an access or refresh token of an application takes all of its grant along; one that the application got for
 * itself goes alone. What is no token of that application is left alone without a word. Throws `not_found` for no application.
 */
export async function revokeTokenOfApplication(
  deps: Deps,
  caller: Caller,
  address: Address,
  { id, token }: z.output<typeof revokeTokenOfApplicationInput>,
): Promise<void> {
  await assertMayRevokeByValue(deps, address);
  await getOauthApplication(deps, { id });
  const found = await whatIs(deps, token);
  if (found?.applicationId !== id) return;
  if (found.grantId !== null) await revokeOauthGrant(deps, caller, { id: found.grantId });
  else if (found.tokenId !== undefined) await revokeOauthToken(deps, caller, { id: found.tokenId });
}

interface Meant {
  applicationId: string;
  grantId: string | null;
  /** Absent of a refresh token. */
  tokenId?: string;
}

/** What a value is, whatever became of it; null for no token of an application. */
async function whatIs(deps: Deps, value: string): Promise<Meant | null> {
  if (parseValue(value)?.prefix === PREFIXES.refreshToken) return grantOfRefreshToken(deps, value);
  const found = await findOauthToken(deps, value);
  if (!found) return null;
  return { applicationId: found.applicationId, grantId: found.tokenGrantId, tokenId: found.tokenId };
}

async function grantOfRefreshToken({ store: { read }, keyring }: Deps, value: string): Promise<Meant | null> {
  const { oauthRefreshTokens: r } = read.tables;
  const [found] = await read.db
    .select({ applicationId: r.application_id, grantId: r.grant_id })
    .from(r)
    .where(eq(r.hash, keyring.hash(value)));
  return found ?? null;
}

function assertNoCaller(value: string): void {
  if (!value.startsWith(PREFIXES.secretKey) && !value.startsWith(PREFIXES.machineSecretKey)) return;
  throw new CountersignError(
    'invalid_input',
    "Cannot revoke: 'value' must be an OAuth token, got a secret key or machine secret key",
    { field: 'value' },
  );
}
