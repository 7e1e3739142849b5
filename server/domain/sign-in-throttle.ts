/** How often a password may be tried: rows, for they must not be lost with Redis. */
import { eq, sql } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import { rowMac } from '../crypto/hashing.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { networkOf } from './addresses.ts';
import type { Address } from './secrets.ts';

interface Throttle {
  count: number;
  windowMs: number;
}

const MINUTE_MS = 60_000;

/** From one network, whatever names are tried. */
const OF_NETWORK: Throttle = { count: 50, windowMs: 15 * MINUTE_MS };
/** At one name from one network: others cannot lock its user out. */
const OF_NAME_AND_NETWORK: Throttle = { count: 5, windowMs: 15 * MINUTE_MS };
/** At one name from everywhere. */
const OF_NAME: Throttle = { count: 100, windowMs: 60 * MINUTE_MS };

/** A try that was counted. */
export interface Try {
  /** Of its rows. */
  ids: string[];
}

/**
 * Counts a try before it is made, so that many at once are no way around. Throws `rate_limited`, and says the same whether
 * or not anybody has that name.
 */
export async function countTry(deps: Deps, name: string, address: Address): Promise<Try> {
  const network = networkOf(address());
  const counted: [string, Throttle][] = [
    [idOf(deps, 'network', network), OF_NETWORK],
    [idOf(deps, 'name and network', name, network), OF_NAME_AND_NETWORK],
    [idOf(deps, 'name', name), OF_NAME],
  ];
  const until = await deps.store.tx(async (tx) => {
    for (const [id, throttle] of counted) {
      const { count, expiresAt } = await add(tx, id, deps.now(), throttle);
      // What comes after is not counted: a network that is refused adds nothing to the names it tries.
      if (count > throttle.count) return expiresAt;
    }
    return null;
  });
  if (until === null) return { ids: counted.map(([id]) => id) };
  const retryAfterMs = Math.max(1, until - deps.now());
  throw new CountersignError(
    'rate_limited',
    `Too many attempts to sign in: try again in ${Math.ceil(retryAfterMs / MINUTE_MS)} min`,
    { retryAfterMs },
  );
}

/** Gives back what a try took that was no failure. */
export async function forgiveTry(deps: Deps, { ids }: Try): Promise<void> {
  const [network = '', nameAndNetwork = '', name = ''] = ids;
  await deps.store.tx(async (tx) => {
    const { signInFailures: f } = tx.tables;
    await tx.db.delete(f).where(eq(f.id, nameAndNetwork));
    for (const id of [network, name])
      await tx.db
        .update(f)
        .set({ count: sql`${f.count} - 1` })
        .where(sql`${f.id} = ${id} and ${f.count} > 0`);
  });
}

/** One statement, so that of many at once each is counted; a window that is over begins anew. */
async function add(tx: Rows, id: string, now: number, { windowMs }: Throttle) {
  const { signInFailures: f } = tx.tables;
  const [row] = await tx.db
    .insert(f)
    .values({ id, count: 1, expires_at: now + windowMs })
    .onConflictDoUpdate({
      target: f.id,
      set: {
        count: sql`case when ${f.expires_at} <= ${now} then 1 else ${f.count} + 1 end`,
        expires_at: sql`case when ${f.expires_at} <= ${now} then excluded.expires_at else ${f.expires_at} end`,
      },
    })
    .returning({ count: f.count, expiresAt: f.expires_at });
  if (!row) throw new Error('A try was not counted');
  return row;
}

/** Keyed: who reads the database learns no names that were tried. */
const idOf = ({ keyring }: Deps, ...what: string[]) =>
  rowMac(keyring.rowMac, ['sign_in_failures', ...what]).toString('base64url');
