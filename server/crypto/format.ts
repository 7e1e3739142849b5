/**
 * The shape of every value we issue (contract.md, values): prefix, 43 characters of base62 that are a 256-bit number
 * big-endian, 6 characters of base62 that are the CRC-32 (IEEE) of all before them. Free of dependencies: clients use
 * it to refuse typos without any I/O. The checksum is not keyed, so it is no defence.
 */

/** In ASCII order, so that comparing encoded numbers of one length compares the numbers. */
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const BODY_LENGTH = 43;
const CHECKSUM_LENGTH = 6;
export const SUFFIX_LENGTH = BODY_LENGTH + CHECKSUM_LENGTH;

/** 2²⁵⁶ − 1: a body above it has no 256-bit number to decode to, so it could not be encoded again to the same. */
const BODY_MAX = encodeBase62((1n << 256n) - 1n, BODY_LENGTH);

/** Prefixes of values, reserved for their kind. */
export const PREFIXES = {
  secretKey: 'sk_',
  machineSecretKey: 'msk_',
  apiKey: 'ak_',
  m2mToken: 'mt_',
  accessToken: 'oat_',
  refreshToken: 'ort_',
  authorizationCode: 'oac_',
  applicationSecret: 'oas_',
  initialAccessToken: 'iat_',
  userSession: 'uss_',
  userInvitation: 'inv_',
  resumption: 'res_',
  panelToken: 'pnl_',
} as const;

/** The kinds of credential that `verify` knows. */
export type CredentialKind = 'm2m_token' | 'api_key' | 'oauth_token';

const VALUE = new RegExp(`^([a-z0-9_]*_)[0-9A-Za-z]{${SUFFIX_LENGTH}}$`);
const JWT = /^eyJ[A-Za-z0-9_-]{1,8192}\.eyJ[A-Za-z0-9_-]{1,12288}\.[A-Za-z0-9_-]{1,1024}$/;

/** The prefix of a well-formed value, or null: wrong shape, number out of range, or wrong checksum. */
export function parseValue(value: string): { prefix: string } | null {
  const prefix = VALUE.exec(value)?.[1];
  if (prefix === undefined) return null;
  const body = value.slice(prefix.length, prefix.length + BODY_LENGTH);
  if (body > BODY_MAX) return null;
  return value.slice(-CHECKSUM_LENGTH) === checksum(prefix + body) ? { prefix } : null;
}

/** Whether a text has the three parts of a compact JWS with JSON header and payload (RFC 7515, section 7.1). */
export const looksLikeJwt = (value: string): boolean => JWT.test(value);

/** Encodes 32 bytes as a value. */
export function formatValue(prefix: string, bytes: Uint8Array): string {
  if (bytes.length !== 32) throw new RangeError(`Cannot format value: wanted 32 bytes, got ${bytes.length}`);
  let number = 0n;
  for (const byte of bytes) number = (number << 8n) | BigInt(byte);
  const unchecked = prefix + encodeBase62(number, BODY_LENGTH);
  return unchecked + checksum(unchecked);
}

/** Encodes a number in base62, left-padded with `0`. */
export function encodeBase62(number: bigint, length: number): string {
  let text = '';
  for (let rest = number; rest > 0n; rest /= 62n) text = ALPHABET[Number(rest % 62n)] + text;
  return text.padStart(length, '0');
}

function checksum(text: string): string {
  let encoded = '';
  for (let rest = crc32(text), i = 0; i < CHECKSUM_LENGTH; i++, rest = Math.floor(rest / 62))
    encoded = ALPHABET.charAt(rest % 62) + encoded;
  return encoded;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++)
    remainder = remainder & 1 ? (remainder >>> 1) ^ 0xedb88320 : remainder >>> 1;
  return remainder;
});

/** CRC-32 (IEEE 802.3) of ASCII text, unsigned. */
export function crc32(text: string): number {
  let remainder = 0xffffffff;
  for (let i = 0; i < text.length; i++) {
    remainder = (remainder >>> 8) ^ (CRC_TABLE[(remainder ^ text.charCodeAt(i)) & 0xff] as number);
  }
  return (remainder ^ 0xffffffff) >>> 0;
}
