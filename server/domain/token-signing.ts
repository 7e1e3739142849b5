/** What tokens of every kind that are JWTs have in common: a key that is active as their row is written, and a status index. */
import type { Rows } from '../../db/store.ts';
import type { PrivateSigningKey } from '../crypto/jwt.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { isStillActive } from './signing-keys.ts';
import type { StatusIndex } from './status-indexes.ts';
import { statusListUri } from './status-lists.ts';

/** What the payload of a JWT may hold for `looksLikeJwt` to accept it: 12,288 characters of base64url. */
export const JWT_PAYLOAD_BYTES_MAX = 9_216;

/** By what a JWT is signed once its row is durable, and the bit that tells of it. */
export interface Signing {
  key: PrivateSigningKey;
  status: StatusIndex;
}

/** More than one try only when another process activated a key, which it does not do twice in a moment. */
const ATTEMPTS_MAX = 3;

/**
 * Has `write` write the row of a token; of an opaque one without a signing. It answers null where `isStillActive` says that
 * another process took the key out of service meanwhile: that signs nothing, and the next try has its successor.
 */
export async function withSigning<T extends object>(
  deps: Deps,
  format: 'opaque' | 'jwt',
  write: (signing: Signing | null) => Promise<T | null>,
): Promise<T> {
  let superseded: string | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const signing = format === 'jwt' ? await takeSigning(deps, superseded) : null;
    const written = await write(signing);
    if (written) return written;
    superseded = signing?.key.kid;
  }
  throw new CountersignError('unavailable', 'Cannot create token: the signing key is being replaced');
}

async function takeSigning(deps: Deps, superseded: string | undefined): Promise<Signing> {
  const key = await deps.signer.active(superseded);
  return { key, status: await deps.statusIndexes.take(deps) };
}

/** To be asked in the transaction that writes the row. */
export const maySign = async (tx: Rows, signing: Signing | null): Promise<boolean> =>
  signing === null || isStillActive(tx, signing.key.kid);

/** When a token that is made now and lives for so many seconds is over. */
export const expiresAfter = (format: 'opaque' | 'jwt', now: number, ttlSeconds: number): number =>
  // A JWT tells time in whole seconds (RFC 7519, section 2): row and `exp` name the same instant.
  format === 'jwt' ? (Math.floor(now / 1000) + ttlSeconds) * 1000 : now + ttlSeconds * 1000;

/** draft-ietf-oauth-status-list, section 6.2. */
export const statusClaim = (
  { publicUrl }: Pick<Deps, 'publicUrl'>,
  { status_list_id: id, status_index: idx }: { status_list_id: string | null; status_index: number | null },
) => id !== null && { status: { status_list: { idx, uri: statusListUri(publicUrl, id) } } };

/** The columns of a row that say how its JWT is signed. */
export const signingColumns = (signing: Signing | null) => ({
  signing_kid: signing?.key.kid ?? null,
  status_list_id: signing?.status.listId ?? null,
  status_index: signing?.status.index ?? null,
});
