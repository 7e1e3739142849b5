/**
 * The revocation endpoint (RFC 7009). Whatever a value is, the answer is the same: who has it learns nothing of it here. Only so
 * many may be nothing of the application's, from one network.
 */
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { Caller } from '../deps.ts';
import { assertMayRevokeByValue } from '../domain/address-limits.ts';
import { revokeM2mTokenByValue } from '../domain/m2m-tokens.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { revokeByRefreshToken } from '../domain/oauth-refresh-tokens.ts';
import { findOauthToken, revokeOauthToken } from '../domain/oauth-tokens.ts';
import { authenticateClient } from './client-authentication.ts';
import { json, type OauthEndpoint, type OauthRequest, parametersOf } from './endpoint.ts';

const BODY_BYTES_MAX = 24 * 1024;

/** `/oauth/token/revoke` is Clerk's. */
export const revocationEndpoints: readonly OauthEndpoint[] = ['/oauth/revoke', '/oauth/token/revoke'].map(
  (path) => ({
    path,
    methods: ['POST'] as const,
    body: 'form' as const,
    bytesMax: BODY_BYTES_MAX,
    cors: true,
    refusals: 'json' as const,
    async answer(request) {
      const client = await authenticateClient(request);
      const { token } = parametersOf(request.form);
      if (token === undefined) throw new OauthError('invalid_request', "Wanted 'token', found none");
      if (client.kind === 'machine') await revokeOfMachine(request, client.caller, token);
      else await revokeOrCount(request, client.authenticated.application.id, token);
      // An object: a client that reads JSON gets some.
      return json(200, {});
    },
  }),
);

async function revokeOfMachine(
  { deps, address }: OauthRequest,
  caller: Caller,
  token: string,
): Promise<void> {
  if (token.startsWith(PREFIXES.machineSecretKey) || token.startsWith(PREFIXES.secretKey)) return;
  await revokeM2mTokenByValue(deps, caller, address, { value: token, reason: 'revoked_by_client' });
}

async function revokeOrCount(request: OauthRequest, applicationId: string, token: string): Promise<void> {
  if (await revokeOfApplication(request, applicationId, token)) return;
  await assertMayRevokeByValue(request.deps, request.address);
}

/** A refresh token takes its grant along (RFC 7009, section 2.1); an access token goes alone. Answers whether it is the application's. */
async function revokeOfApplication(
  { deps, requestId }: OauthRequest,
  applicationId: string,
  token: string,
): Promise<boolean> {
  const caller: Caller = { principal: { kind: 'oauth_application', id: applicationId }, requestId };
  if (parseValue(token)?.prefix === PREFIXES.refreshToken)
    return revokeByRefreshToken(deps, caller, applicationId, token);
  const found = await findOauthToken(deps, token);
  if (found?.applicationId !== applicationId) return false;
  if (found.tokenRevokedAt === null)
    await revokeOauthToken(deps, caller, { id: found.tokenId, reason: 'revoked_by_client' });
  return true;
}
