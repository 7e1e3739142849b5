/** Limits per client address, for what somebody might try over and over with values that are not theirs. */
import type { Deps } from '../deps.ts';
import type { Limit } from '../limits.ts';
import { networkOf } from './addresses.ts';
import { takeOne } from './rate-limits.ts';
import type { Address } from './secrets.ts';

/** threats.md, credentials: revoking by value is limited for each address. */
const REVOKE_BY_VALUE: Limit = { count: 60, windowSeconds: 60 };

/** Throws `rate_limited` where an address asked to revoke by value too often. */
export async function assertMayRevokeByValue(deps: Deps, address: Address): Promise<void> {
  const key = `revoke_by_value:${networkOf(address())}`;
  await takeOne(
    deps,
    key,
    REVOKE_BY_VALUE,
    `Cannot revoke by value: wanted at most ${REVOKE_BY_VALUE.count} calls in a minute from one address`,
  );
}
