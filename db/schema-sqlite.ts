import { sqliteKit } from './kit.ts';
import { buildTables } from './schema.ts';

/** What drizzle-kit reads to write the SQLite migrations. */
export const {
  installation,
  wrappedKeys,
  eventHead,
  events,
  secrets,
  secretKeys,
  machines,
  machineScopes,
  m2mTokens,
  apiKeys,
  signingKeys,
  webhookEndpoints,
  webhookCursor,
  deliveries,
  usage,
  keyPolicies,
  keyPrefixes,
  importedShapes,
  subjects,
  subjectUsage,
  credits,
  idempotencyKeys,
  m2mTokenCounts,
  deliveryAttempts,
  eventAnchor,
  eventCheckpoints,
  jobs,
  expiryNotices,
} = buildTables(sqliteKit);
