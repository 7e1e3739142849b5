/** Where the server is and who is calling, from options or environment. No message holds a key, or a URL's password. */
import { PREFIXES } from '../server/crypto/format.ts';
import { CountersignError } from '../server/errors.ts';

export interface CountersignOptions {
  /** Of the server; https, or http on loopback. Default: `COUNTERSIGN_URL`. */
  url?: string | undefined;
  /** `sk_…`, for administration. Default: `COUNTERSIGN_SECRET_KEY`. */
  secretKey?: string | undefined;
  /** `msk_…`, a machine's own, or an imported one's `ak_…`. Exactly one of the two keys. Default: `COUNTERSIGN_MACHINE_SECRET_KEY`. */
  machineSecretKey?: string | undefined;
  /** The limit of a whole call, with everything that is sent again. Default 5000. */
  timeoutMs?: number | undefined;
  /** How often a call that may be repeated is sent again after a failure that may pass. Default 2. */
  retries?: number | undefined;
  /** Sends the requests. Default: a pool of connections of this client's own. */
  fetch?: typeof fetch | undefined;
}

/** The server's URL, ending in a slash; it may have a path. */
export function serverUrl(given: string | undefined): URL {
  const text = given ?? process.env['COUNTERSIGN_URL'];
  if (!text) throw refusal("wanted 'url' or the variable COUNTERSIGN_URL, found neither", 'url');
  if (!URL.canParse(text)) throw refusal("'url' must be absolute, as in 'https://auth.example.com'", 'url');
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    throw refusal(`'url' must be https, or http on loopback, got ${url.protocol}//${url.host}`, 'url');
  }
  if (url.username || url.password || url.search || url.hash) {
    throw refusal("'url' must have no user, query or fragment", 'url');
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}

/** URL parsing has already brought IPv4 addresses to their one form. */
export const isLoopback = (host: string) =>
  host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);

/** The `Authorization` header. Keys that are given win over the environment. */
export function authorizationOf({ secretKey, machineSecretKey }: CountersignOptions): string {
  const given = secretKey !== undefined || machineSecretKey !== undefined;
  const keys = given
    ? { secretKey, machineSecretKey }
    : {
        secretKey: process.env['COUNTERSIGN_SECRET_KEY'] || undefined,
        machineSecretKey: process.env['COUNTERSIGN_MACHINE_SECRET_KEY'] || undefined,
      };
  if (keys.secretKey !== undefined && keys.machineSecretKey !== undefined) {
    throw refusal("wanted one of 'secretKey' and 'machineSecretKey', found both");
  }
  if (keys.secretKey !== undefined) return bearer('secretKey', keys.secretKey, PREFIXES.secretKey);
  if (keys.machineSecretKey !== undefined) {
    return machineBearer(keys.machineSecretKey);
  }
  throw refusal(
    "wanted 'secretKey' or 'machineSecretKey', or one of the variables COUNTERSIGN_SECRET_KEY and COUNTERSIGN_MACHINE_SECRET_KEY, found none",
  );
}

/** An imported machine goes on with a secret of the shape that it had elsewhere. */
function machineBearer(key: string): string {
  const imported = key.startsWith(PREFIXES.apiKey) ? PREFIXES.apiKey : PREFIXES.machineSecretKey;
  return bearer('machineSecretKey', key, imported);
}

export function bearer(field: string, key: string, prefix: string): string {
  if (key.startsWith(prefix) && /^[\x21-\x7e]{1,16384}$/.test(key)) return `Bearer ${key}`;
  throw refusal(
    `'${field}' must begin with '${prefix}' and hold no spaces, got ${key.length} characters that do not`,
    field,
  );
}

/** A whole number within limits. */
export function wholeNumber(field: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw refusal(`'${field}' must be a whole number from ${min} to ${max}, got ${value}`, field);
}

const refusal = (what: string, field?: string) =>
  new CountersignError('invalid_input', `Cannot create client: ${what}`, { field });
