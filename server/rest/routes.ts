/** The table of routes: every noun's rows, and which of them a path means. */
import { apiKeyRoutes } from './api-keys.ts';
import { credentialRoutes } from './credentials.ts';
import { deliveryRoutes } from './deliveries.ts';
import { eventRoutes } from './events.ts';
import { initialAccessTokenRoutes } from './initial-access-tokens.ts';
import { interactionRoutes } from './interactions.ts';
import { jobRoutes } from './jobs.ts';
import { keyPolicyRoutes } from './key-policies.ts';
import { keyPrefixRoutes } from './key-shapes.ts';
import { m2mTokenRoutes } from './m2m-tokens.ts';
import { machineScopeRoutes } from './machine-scopes.ts';
import { machineRoutes } from './machines.ts';
import { oauthApplicationRoutes } from './oauth-applications.ts';
import { oauthGrantRoutes } from './oauth-grants.ts';
import { oauthLogoRoutes } from './oauth-logos.ts';
import { oauthScopeRoutes } from './oauth-scopes.ts';
import { oauthSettingsRoutes } from './oauth-settings.ts';
import { oauthTokenRoutes } from './oauth-tokens.ts';
import { operatorSessionRoutes } from './operator-sessions.ts';
import { overviewRoutes } from './overview.ts';
import { panelGrantRoutes } from './panel-grants.ts';
import { panelKeyRoutes } from './panel-keys.ts';
import { panelTokenRoutes } from './panel-tokens.ts';
import type { Route } from './route.ts';
import { secretKeyRoutes } from './secret-keys.ts';
import { signingKeyRoutes } from './signing-keys.ts';
import { statusListRoutes } from './status-lists.ts';
import { subjectRoutes } from './subjects.ts';
import { usageRoutes } from './usage.ts';
import { userRoutes } from './users.ts';
import { webhookEndpointRoutes } from './webhook-endpoints.ts';

export const ROUTES: readonly Route[] = [
  ...credentialRoutes,
  ...machineRoutes,
  ...machineScopeRoutes,
  ...m2mTokenRoutes,
  ...oauthTokenRoutes,
  ...apiKeyRoutes,
  ...keyPrefixRoutes,
  ...keyPolicyRoutes,
  ...subjectRoutes,
  ...secretKeyRoutes,
  ...oauthApplicationRoutes,
  ...userRoutes,
  ...interactionRoutes,
  ...oauthScopeRoutes,
  ...oauthGrantRoutes,
  ...oauthLogoRoutes,
  ...oauthSettingsRoutes,
  ...initialAccessTokenRoutes,
  ...signingKeyRoutes,
  ...statusListRoutes,
  ...webhookEndpointRoutes,
  ...deliveryRoutes,
  ...eventRoutes,
  ...usageRoutes,
  ...jobRoutes,
  ...operatorSessionRoutes,
  ...overviewRoutes,
  ...panelTokenRoutes,
  ...panelKeyRoutes,
  ...panelGrantRoutes,
];

/** The rows at one path that the domain answers. */
export interface PathRoutes {
  /** As the table has it. */
  path: string;
  routes: readonly Route[];
}

export interface FoundPath extends PathRoutes {
  /** What stands where the path has names, still encoded. */
  params: Readonly<Record<string, string>>;
}

interface Pattern extends PathRoutes {
  segments: readonly string[];
}

/** The rows that a path means, with `/v1` or without; null where there are none. */
export function findPath(path: string): FoundPath | null {
  const versioned = path.startsWith('/v1/') ? path : `/v1${path}`;
  const segments = versioned.split('/');
  for (const { segments: wanted, ...found } of PATTERNS.get(segments.length) ?? []) {
    const params = match(wanted, segments);
    if (params) return { ...found, params };
  }
  return null;
}

/** By their number of segments; among those, names come after what is spelled out. */
const PATTERNS = patternsOf(ROUTES.filter(({ run }) => run !== null));

function patternsOf(routes: readonly Route[]): ReadonlyMap<number, readonly Pattern[]> {
  const byPath = groupBy(routes, ({ path }) => path);
  const patterns = [...byPath].map(([path, rows]) => ({ path, routes: rows, segments: path.split('/') }));
  patterns.sort((one, other) => namesIn(one) - namesIn(other));
  return groupBy(patterns, ({ segments }) => segments.length);
}

function groupBy<K, T>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

function namesIn({ segments }: Pattern): number {
  return segments.filter(isName).length;
}

function isName(segment: string): boolean {
  return segment.startsWith('{');
}

function match(
  wanted: readonly string[],
  segments: readonly string[],
): Readonly<Record<string, string>> | null {
  const params: Record<string, string> = {};
  for (const [index, segment] of wanted.entries()) {
    const found = segments[index] ?? '';
    if (isName(segment) ? found === '' : found !== segment) return null;
    if (isName(segment)) params[segment.slice(1, -1)] = found;
  }
  return params;
}
