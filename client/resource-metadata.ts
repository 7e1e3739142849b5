/** The metadata of a protected resource (RFC 9728): who issues what it accepts. */
import { CountersignError } from '../server/errors.ts';

export interface ResourceMetadataOptions {
  /** The URL of the resource: https, or http on loopback; no query, no fragment. */
  resource: string;
  /** Issuers whose tokens it accepts. */
  authorizationServers: readonly string[];
  /** Scopes that may be asked for. */
  scopes?: readonly string[] | undefined;
  /** What people call it. */
  name?: string | undefined;
  /** A page for those who write programs that call it. */
  documentation?: string | undefined;
}

export interface ResourceMetadata {
  /** Where it is served: the path of every origin that serves the resource. */
  path: string;
  headers: Record<string, string>;
  body: string;
}

const WELL_KNOWN = '/.well-known/oauth-protected-resource';

/** The document, and where it belongs. */
export function resourceMetadata(options: ResourceMetadataOptions): ResourceMetadata {
  const { resource, authorizationServers, scopes, name, documentation } = options;
  return {
    path: new URL(metadataUrl(resource)).pathname,
    headers: {
      'content-type': 'application/json',
      'cache-control': 'public, max-age=300',
      // Agents in browsers read it; there is nothing in it that is not for everybody.
      'access-control-allow-origin': '*',
    },
    body: JSON.stringify({
      resource,
      authorization_servers: authorizationServers,
      ...(scopes && { scopes_supported: scopes }),
      bearer_methods_supported: ['header'],
      ...(name !== undefined && { resource_name: name }),
      ...(documentation !== undefined && { resource_documentation: documentation }),
    }),
  };
}

/** RFC 9728, section 3.1: the well-known path goes between the resource's host and its path. */
export function metadataUrl(resource: string): string {
  const url = URL.canParse(resource) ? new URL(resource) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username) {
    throw new CountersignError(
      'invalid_input',
      "Cannot protect: 'resource' must be an absolute URL without user, query and fragment",
      { field: 'resource' },
    );
  }
  return `${url.origin}${WELL_KNOWN}${url.pathname === '/' ? '' : url.pathname}`;
}
