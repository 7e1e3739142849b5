/** Limits per client address, for what somebody might try over and over with values that are not theirs. */
import { isIP } from 'node:net';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { canonicalAddress } from './addresses.ts';
import type { Address } from './secrets.ts';

/** threats.md, credentials: revoking by value is limited for each address. */
const REVOKE_BY_VALUE: Limit = { count: 60, windowSeconds: 60 };

/** Throws `rate_limited` where an address asked to revoke by value too often. */
export async function assertMayRevokeByValue(deps: Deps, address: Address): Promise<void> {
  const key = `revoke_by_value:${networkOf(address())}`;
  const { allowed, retryAfterMs } = await deps.limits.consume(key, REVOKE_BY_VALUE, 1);
  if (allowed) return;
  throw new CountersignError(
    'rate_limited',
    `Cannot revoke by value: wanted at most ${REVOKE_BY_VALUE.count} calls in a minute from one address, the next in ${retryAfterMs} ms`,
    { retryAfterMs },
  );
}

/** An IPv4 address, or the /64 of an IPv6 address: whoever has one of its addresses has them all. */
export function networkOf(address: string): string {
  const canonical = canonicalAddress(address);
  if (canonical === null) return 'none';
  if (isIP(canonical) === 4) return canonical;
  const [head = '', tail] = canonical.split('::');
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - groups.length - after.length;
  return [...groups, ...Array.from({ length: zeros }, () => '0'), ...after].slice(0, 4).join(':');
}
