/** Passwords of local accounts: which may be chosen, and what is kept of them. */
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';

const LENGTH_MIN = 12;
const LENGTH_MAX = 256;
const DIFFERENT_MIN = 5;

export const PASSWORD_RULE = `At least ${LENGTH_MIN} characters of any kind; several words are easy to keep in mind`;

/** What is guessed first, whatever digits and signs are put around it. */
const COMMON =
  /^(pass|password|passwort|passphrase|letmein|welcome|admin|administrator|changeme|iloveyou|monkey|dragon|master|football|baseball|sunshine|princess|trustno|secret|countersign|qwerty|qwertz|qwertyuiop|azerty|asdfghjkl|zxcvbnm|abcdefghijkl(mnopqrstuvwxyz)?)+$/;

/**
 * One that may be chosen, as it is hashed: the same characters however they were typed (NIST SP 800-63B, section 5.1.1.2).
 * Throws `invalid_input` for one that is short or among the first that are guessed; `names` are those of its user.
 */
export function acceptPassword(given: string, names: readonly (string | null)[]): string {
  const password = normalized(given);
  const refused = refusalOf(password, names);
  if (refused === null) return password;
  throw new CountersignError('invalid_input', `Wanted another password: ${refused}`, { field: 'password' });
}

const normalized = (password: string) => password.normalize('NFKC');

function refusalOf(password: string, names: readonly (string | null)[]): string | null {
  const characters = [...password];
  if (characters.length < LENGTH_MIN) return `one of at least ${LENGTH_MIN} characters`;
  if (characters.length > LENGTH_MAX) return `one of at most ${LENGTH_MAX} characters`;
  if (/[\p{Cc}\p{Cs}]/u.test(password)) return 'one without control characters';
  const lower = password.toLowerCase();
  if (new Set(lower).size < DIFFERENT_MIN) return `one of at least ${DIFFERENT_MIN} different characters`;
  const letters = lower.replace(/[^\p{L}]/gu, '');
  if (COMMON.test(letters) || isCounting(lower)) return 'one that is not among the first to be guessed';
  if (names.some((name) => name && lower.includes(name.toLowerCase())))
    return 'one without your name or address in it';
  return null;
}

/** Whether each character follows the one before it, as in 123456789012. */
function isCounting(text: string): boolean {
  const steps = [...text].slice(1).map((character, i) => character.charCodeAt(0) - text.charCodeAt(i));
  return steps.filter((step) => step === 1 || step === -1 || step === 0).length >= steps.length - 1;
}

/** Said of a name that nobody has and of a user who may not sign in, too. */
export const wrongPassword = () =>
  new CountersignError('unauthenticated', 'The name or the password is wrong');

/** 32 MiB, twice. Half of what OWASP asks where hashes are stored bare; these are sealed. */
const COST = { ln: 15, r: 8, p: 2 };
const SALT_LENGTH = 16;
const HASH_LENGTH = 32;

/** What is kept of a password that was accepted: sealed, so that who reads the database can check no guess, and bound to its user. */
export async function hashPassword({ keyring }: Deps, userId: string, password: string): Promise<Buffer> {
  const salt = randomBytes(SALT_LENGTH);
  const hash = await derive(password, salt, COST);
  const { ln, r, p } = COST;
  const kept = `$scrypt$ln=${ln},r=${r},p=${p}$${salt.toString('base64')}$${hash.toString('base64')}`;
  return keyring.seal(placeOf(userId), kept);
}

const placeOf = (userId: string) => `users.password_hash.${userId}`;

/** Whether a password is a user's. It takes as long where there is no such user, or none with a password. */
export async function isPasswordOf(
  { keyring }: Deps,
  user: { id: string; password_hash: Buffer | null } | null,
  given: string,
): Promise<boolean> {
  const sealed = user?.password_hash ?? null;
  const kept = user && sealed ? parseKept(keyring.unseal(placeOf(user.id), sealed).toString()) : NOBODYS;
  const found = await derive(normalized(given).slice(0, 2 * LENGTH_MAX), kept.salt, kept.cost);
  return timingSafeEqual(found, kept.hash) && kept !== NOBODYS;
}

interface Kept {
  cost: typeof COST;
  salt: Buffer;
  hash: Buffer;
}

const NOBODYS: Kept = { cost: COST, salt: randomBytes(SALT_LENGTH), hash: randomBytes(HASH_LENGTH) };

const KEPT = /^\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([^$]+)\$([^$]+)$/;

function parseKept(text: string): Kept {
  const [, ln, r, p, salt = '', hash = ''] = KEPT.exec(text) ?? [];
  return {
    cost: { ln: Number(ln), r: Number(r), p: Number(p) },
    salt: Buffer.from(salt, 'base64'),
    hash: Buffer.from(hash, 'base64'),
  };
}

/** Each takes 32 MiB and some tenths of a second of one core: more at once would be a way to keep the server busy. */
const AT_ONCE_MAX = 2;
const RETRY_AFTER_MS = 1_000;
let underWay = 0;

/** Does what hashes a password, while few others do. Throws `rate_limited` before anything is done. */
export async function whileFewHash<T>(work: () => Promise<T>): Promise<T> {
  if (underWay >= AT_ONCE_MAX)
    throw new CountersignError('rate_limited', 'Many people are signing in: try again in a moment', {
      retryAfterMs: RETRY_AFTER_MS,
    });
  underWay++;
  try {
    return await work();
  } finally {
    underWay--;
  }
}

function derive(password: string, salt: Buffer, { ln, r, p }: typeof COST): Promise<Buffer> {
  const options: ScryptOptions = { N: 2 ** ln, r, p, maxmem: 2 * 128 * r * 2 ** ln };
  return new Promise((done, fail) =>
    scrypt(password, salt, HASH_LENGTH, options, (error, hash) => (error ? fail(error) : done(hash))),
  );
}
