import { encodeBase62 } from './format.ts';
import { hmac } from './hashing.ts';
import { freshBytes } from './random.ts';

/** KSUID's epoch, 2014-05-13: 27 characters of base62 hold 4 bytes of seconds since then and 16 random bytes. */
const KSUID_EPOCH_SECONDS = 1_400_000_000;

/** An id of 27 base62 characters as Clerk's machines have them, sorted by second of creation. */
export function sortableId(
  prefix:
    | 'mch_'
    | 'evt_'
    | 'ep_'
    | 'dlv_'
    | 'sec_'
    | 'key_'
    | 'kp_'
    | 'sl_'
    | 'ses_'
    | 'csl_'
    | 'pnl_'
    | 'pis_'
    | 'oauthapp_'
    | 'gnt_'
    | 'ocn_'
    | 'oac_'
    | 'ort_'
    | 'int_'
    | 'iat_'
    | 'user_'
    | 'uss_'
    | 'inv_',
  now: number,
): string {
  const seconds = BigInt(Math.floor(now / 1000) - KSUID_EPOCH_SECONDS);
  const random = BigInt(`0x${freshBytes(16).toString('hex')}`);
  return prefix + encodeBase62((seconds << 128n) | random, 27);
}

/** An id of 32 hex digits as Clerk's keys and tokens have them: 6 bytes of milliseconds, 10 random bytes. */
export function hexId(prefix: 'ak_' | 'mt_' | 'sk_' | 'oat_', now: number): string {
  return prefix + now.toString(16).padStart(12, '0').slice(-12) + freshBytes(10).toString('hex');
}

/** An id of 27 base62 characters that is always the same for the same key. */
export function derivedId(prefix: 'ins_', key: Buffer): string {
  const digest = hmac(key, `countersign id ${prefix}`).subarray(0, 20);
  return prefix + encodeBase62(BigInt(`0x${digest.toString('hex')}`), 27);
}
