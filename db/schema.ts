import type { Kit } from './kit.ts';
import { apiKeysTable } from './tables/api-keys.ts';
import { creditsTable } from './tables/credits.ts';
import { deliveriesTable, deliveryAttemptsTable } from './tables/deliveries.ts';
import { eventAnchorTable, eventCheckpointsTable, eventHeadTable, eventsTable } from './tables/events.ts';
import { idempotencyKeysTable } from './tables/idempotency-keys.ts';
import { installationTable, wrappedKeysTable } from './tables/installation.ts';
import { expiryNoticesTable, jobsTable } from './tables/jobs.ts';
import { keyPoliciesTable } from './tables/key-policies.ts';
import { importedShapesTable, keyPrefixesTable } from './tables/key-shapes.ts';
import { m2mTokenCountsTable } from './tables/m2m-token-counts.ts';
import { m2mTokensTable } from './tables/m2m-tokens.ts';
import { machineScopesTable } from './tables/machine-scopes.ts';
import { machinesTable } from './tables/machines.ts';
import {
  initialAccessTokensTable,
  oauthApplicationsTable,
  oauthLogosTable,
} from './tables/oauth-applications.ts';
import {
  oauthCodesTable,
  oauthConsentsTable,
  oauthGrantsTable,
  oauthRefreshTokensTable,
  oauthTokensTable,
} from './tables/oauth-grants.ts';
import { oauthInteractionsTable } from './tables/oauth-interactions.ts';
import { oauthScopesTable } from './tables/oauth-scopes.ts';
import { oauthSettingsTable } from './tables/oauth-settings.ts';
import { operatorSessionsTable, signInLinksTable } from './tables/operator-sessions.ts';
import { panelIssuersTable, panelTokensTable } from './tables/panel-tokens.ts';
import { secretKeysTable } from './tables/secret-keys.ts';
import { secretsTable } from './tables/secrets.ts';
import { signingKeysTable } from './tables/signing-keys.ts';
import { statusListsTable } from './tables/status-lists.ts';
import { subjectsTable, subjectUsageTable } from './tables/subjects.ts';
import { usageTable } from './tables/usage.ts';
import { signInFailuresTable, userInvitationsTable, userSessionsTable, usersTable } from './tables/users.ts';
import { webhookCursorTable, webhookEndpointsTable } from './tables/webhook-endpoints.ts';

/** Every table, built with one dialect's kit. */
export function buildTables(k: Kit) {
  const machines = machinesTable(k);
  return {
    installation: installationTable(k),
    wrappedKeys: wrappedKeysTable(k),
    eventHead: eventHeadTable(k),
    events: eventsTable(k),
    secrets: secretsTable(k),
    secretKeys: secretKeysTable(k),
    machines,
    machineScopes: machineScopesTable(k, machines),
    m2mTokens: m2mTokensTable(k),
    apiKeys: apiKeysTable(k),
    signingKeys: signingKeysTable(k),
    webhookEndpoints: webhookEndpointsTable(k),
    webhookCursor: webhookCursorTable(k),
    deliveries: deliveriesTable(k),
    usage: usageTable(k),
    keyPolicies: keyPoliciesTable(k),
    keyPrefixes: keyPrefixesTable(k),
    importedShapes: importedShapesTable(k),
    subjects: subjectsTable(k),
    subjectUsage: subjectUsageTable(k),
    credits: creditsTable(k),
    idempotencyKeys: idempotencyKeysTable(k),
    m2mTokenCounts: m2mTokenCountsTable(k),
    deliveryAttempts: deliveryAttemptsTable(k),
    eventAnchor: eventAnchorTable(k),
    eventCheckpoints: eventCheckpointsTable(k),
    jobs: jobsTable(k),
    expiryNotices: expiryNoticesTable(k),
    statusLists: statusListsTable(k),
    operatorSessions: operatorSessionsTable(k),
    signInLinks: signInLinksTable(k),
    panelTokens: panelTokensTable(k),
    panelIssuers: panelIssuersTable(k),
    oauthApplications: oauthApplicationsTable(k),
    oauthLogos: oauthLogosTable(k),
    initialAccessTokens: initialAccessTokensTable(k),
    oauthScopes: oauthScopesTable(k),
    oauthSettings: oauthSettingsTable(k),
    oauthGrants: oauthGrantsTable(k),
    oauthConsents: oauthConsentsTable(k),
    oauthCodes: oauthCodesTable(k),
    oauthRefreshTokens: oauthRefreshTokensTable(k),
    oauthTokens: oauthTokensTable(k),
    oauthInteractions: oauthInteractionsTable(k),
    users: usersTable(k),
    userInvitations: userInvitationsTable(k),
    userSessions: userSessionsTable(k),
    signInFailures: signInFailuresTable(k),
  };
}

export type Tables = ReturnType<typeof buildTables>;
