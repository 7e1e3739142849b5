/** Every endpoint of OAuth and OpenID Connect, and every page for end users: a row each, a file each. */
import { authorizationEndpoint } from './authorize.ts';
import { connectedApplicationsEndpoint } from './connected-applications.ts';
import { consentEndpoint } from './consent.ts';
import type { OauthEndpoint } from './endpoint.ts';
import { introspectionEndpoints } from './introspect.ts';
import { invitationEndpoint } from './invitation.ts';
import { LOGOS_PATH, logoEndpoint } from './logo.ts';
import { metadataEndpoints } from './metadata.ts';
import { registrationEndpoint } from './register.ts';
import { resumeEndpoint } from './resume.ts';
import { revocationEndpoints } from './revoke.ts';
import { signInEndpoint } from './sign-in.ts';
import { signOutEndpoint } from './sign-out.ts';
import { tokenEndpoint } from './token.ts';
import { upstreamEndpoint } from './upstream.ts';
import { userinfoEndpoint } from './userinfo.ts';

const ENDPOINTS: readonly OauthEndpoint[] = [
  ...metadataEndpoints,
  authorizationEndpoint,
  signInEndpoint,
  consentEndpoint,
  tokenEndpoint,
  ...introspectionEndpoints,
  ...revocationEndpoints,
  userinfoEndpoint,
  registrationEndpoint,
  upstreamEndpoint,
  resumeEndpoint,
  signOutEndpoint,
  invitationEndpoint,
  connectedApplicationsEndpoint,
];

const BY_PATH: ReadonlyMap<string, OauthEndpoint> = new Map(
  ENDPOINTS.map((endpoint) => [endpoint.path, endpoint]),
);

export const findEndpoint = (path: string): OauthEndpoint | undefined =>
  BY_PATH.get(path) ?? (path.startsWith(LOGOS_PATH) ? logoEndpoint : undefined);
