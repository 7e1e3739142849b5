/** A stand-in for Clerk's Backend API, with machines, users, organizations and API keys. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { listen } from './procedures.ts';

const id = (prefix: string, i: number) => `${prefix}_${String(i).padStart(27, '0')}`;

export interface ClerkStandIn {
  url: string;
  secretKey: string;
  machineIds: string[];
  /** Secrets by the id of their machine or API key. */
  secrets: Map<string, string>;
  keys: Record<string, unknown>[];
  /** Paths with their queries, in order. */
  asked: { path: string; at: number }[];
  /** Answers in place of the API, where it answers true. */
  intercept: (path: string, response: ServerResponse) => boolean;
}

const AT = Date.UTC(2025, 5, 1);

/** One machine in turn may call the next two; every user has one key, every organization two, one of them revoked. */
export async function serveClerk(size: { machines: number; users: number; organizations: number }) {
  const secretKey = `sk_live_${randomBytes(20).toString('hex')}`;
  const secrets = new Map<string, string>();
  const machineIds = Array.from({ length: size.machines }, (_, i) => id('mch', i));
  const userIds = Array.from({ length: size.users }, (_, i) => id('user', i));
  const organizationIds = Array.from({ length: size.organizations }, (_, i) => id('org', i));
  for (const machineId of machineIds) secrets.set(machineId, newSecret());
  const machines = machineIds.map((machineId, i) => ({
    object: 'machine',
    id: machineId,
    name: `machine ${i}`,
    created_at: AT + i,
    default_token_ttl: 600 + i,
    scoped_machines: [1, 2]
      .map((step) => ({ id: machineIds[(i + step) % size.machines] }))
      .filter((to) => to.id !== machineId),
  }));
  const keys = [
    ...userIds.map((subject, i) => newKey(secrets, subject, `user key ${i}`, {})),
    ...organizationIds.flatMap((subject, i) => [
      newKey(secrets, subject, `organization key ${i}`, {
        expiration: Date.UTC(2030, 1, 1),
        scopes: ['invoices:read'],
        claims: { plan: 'pro' },
      }),
      newKey(secrets, subject, `old ${i}`, { revoked: true }),
    ]),
  ];
  const standIn: ClerkStandIn = {
    url: '',
    secretKey,
    machineIds,
    secrets,
    keys,
    asked: [],
    intercept: () => false,
  };

  function bodyOf(path: string, query: URLSearchParams): unknown {
    const page = (all: unknown[]) => {
      const offset = Number(query.get('offset') ?? 0);
      return all.slice(offset, offset + Number(query.get('limit') ?? 10));
    };
    const [, ofSecret] = /^\/(?:v1\/machines|api_keys)\/(\w+)\/secret(?:_key)?$/.exec(path) ?? [];
    if (ofSecret) return { secret: secrets.get(ofSecret) };
    switch (path) {
      case '/v1/machines':
        return { data: page(machines), total_count: machines.length };
      case '/v1/users/count':
        return { object: 'total_count', total_count: userIds.length };
      case '/v1/users':
        return page(userIds.map((each) => ({ id: each })));
      case '/v1/organizations':
        return {
          data: page(organizationIds.map((each) => ({ id: each }))),
          total_count: organizationIds.length,
        };
      case '/api_keys': {
        const own = keys.filter(({ subject }) => subject === query.get('subject'));
        return { data: page(own), total_count: own.length };
      }
      default:
        return undefined;
    }
  }

  function answer(request: IncomingMessage, response: ServerResponse) {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://clerk');
    standIn.asked.push({ path: request.url ?? '', at: performance.now() });
    if (standIn.intercept(pathname, response)) return;
    const isKnown = request.headers.authorization === `Bearer ${secretKey}`;
    const body = isKnown ? bodyOf(pathname, searchParams) : undefined;
    const status = !isKnown ? 401 : body === undefined ? 404 : 200;
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify(body ?? { errors: [{ code: isKnown ? 'resource_not_found' : 'clerk_key_invalid' }] }),
    );
  }

  standIn.url = (await listen(answer)).url;
  return standIn;
}

/** Not of our format: longer, and without a checksum. */
const newSecret = () => `ak_${randomBytes(30).toString('hex')}`;

function newKey(secrets: Map<string, string>, subject: string, name: string, more: Record<string, unknown>) {
  const keyId = `ak_${randomBytes(16).toString('hex')}`;
  secrets.set(keyId, newSecret());
  return {
    object: 'api_key',
    id: keyId,
    type: 'api_key',
    subject,
    name,
    description: null,
    claims: null,
    scopes: [],
    revoked: false,
    expired: false,
    expiration: null,
    created_by: null,
    created_at: AT,
    ...more,
  };
}
