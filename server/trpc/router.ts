import { apiKeysRouter } from './api-keys.ts';
import { router } from './base.ts';
import { credentialsRouter } from './credentials.ts';
import { deliveriesRouter } from './deliveries.ts';
import { eventsRouter } from './events.ts';
import { initialAccessTokensRouter } from './initial-access-tokens.ts';
import { interactionsRouter } from './interactions.ts';
import { jobsRouter } from './jobs.ts';
import { keyPoliciesRouter } from './key-policies.ts';
import { keyPrefixesRouter } from './key-shapes.ts';
import { m2mTokensRouter } from './m2m-tokens.ts';
import { machineScopesRouter } from './machine-scopes.ts';
import { machinesRouter } from './machines.ts';
import { oauthApplicationsRouter } from './oauth-applications.ts';
import { oauthGrantsRouter } from './oauth-grants.ts';
import { oauthLogosRouter } from './oauth-logos.ts';
import { oauthScopesRouter } from './oauth-scopes.ts';
import { oauthSettingsRouter } from './oauth-settings.ts';
import { oauthTokensRouter } from './oauth-tokens.ts';
import { operatorSessionsRouter, signInLinksRouter } from './operator-sessions.ts';
import { overviewRouter } from './overview.ts';
import { panelGrantsRouter } from './panel-grants.ts';
import { panelIssuersRouter } from './panel-issuers.ts';
import { panelKeysRouter } from './panel-keys.ts';
import { panelTokensRouter } from './panel-tokens.ts';
import { secretKeysRouter } from './secret-keys.ts';
import { signingKeysRouter } from './signing-keys.ts';
import { subjectsRouter } from './subjects.ts';
import { usageRouter } from './usage.ts';
import { userSessionsRouter } from './user-sessions.ts';
import { userInvitationsRouter, usersRouter } from './users.ts';
import { webhookEndpointsRouter } from './webhook-endpoints.ts';

/** Every procedure: one router per noun. */
export const appRouter = router({
  machines: machinesRouter,
  machineScopes: machineScopesRouter,
  apiKeys: apiKeysRouter,
  keyPrefixes: keyPrefixesRouter,
  keyPolicies: keyPoliciesRouter,
  subjects: subjectsRouter,
  oauthSettings: oauthSettingsRouter,
  oauthLogos: oauthLogosRouter,
  initialAccessTokens: initialAccessTokensRouter,
  secretKeys: secretKeysRouter,
  m2mTokens: m2mTokensRouter,
  oauthTokens: oauthTokensRouter,
  credentials: credentialsRouter,
  oauthApplications: oauthApplicationsRouter,
  oauthScopes: oauthScopesRouter,
  oauthGrants: oauthGrantsRouter,
  signingKeys: signingKeysRouter,
  webhookEndpoints: webhookEndpointsRouter,
  deliveries: deliveriesRouter,
  events: eventsRouter,
  usage: usageRouter,
  jobs: jobsRouter,
  signInLinks: signInLinksRouter,
  operatorSessions: operatorSessionsRouter,
  overview: overviewRouter,
  panelTokens: panelTokensRouter,
  panelIssuers: panelIssuersRouter,
  panelKeys: panelKeysRouter,
  interactions: interactionsRouter,
  users: usersRouter,
  userInvitations: userInvitationsRouter,
  userSessions: userSessionsRouter,
  panelGrants: panelGrantsRouter,
});

/** What clients import, as a type only. */
export type AppRouter = typeof appRouter;
