/** Structured logs: JSON lines that cannot carry a credential, whatever field or message it got into. */
import pino from 'pino';
import { PREFIXES, parseValue, SUFFIX_LENGTH } from './crypto/format.ts';

export type Logger = pino.Logger;

type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

/**
 * A logger that redacts twice: fields by their name, and then every serialised line by what looks like a credential,
 * wherever it stands. Writes to standard error, which leaves standard output to what people are told at start.
 */
export function createLogger(
  level: LogLevel,
  destination: pino.DestinationStream = pino.destination({ fd: 2, sync: false }),
): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: redactFields, bindings: redactFields },
      // Errors are taken apart by `redactFields`: pino's own serialiser would copy every property they carry.
      serializers: { err: (error) => error },
      hooks: { streamWrite: maskCredentials },
    },
    destination,
  );
}

const REDACTED = '[redacted]';
const DEPTH_MAX = 6;

/** Fields whose text is not logged. An id is: `secretKeyId` and `tokenId` tell which, not what. */
const SENSITIVE = /authorization|cookie|secret|token|credential|passw|passphrase|dsn|connectionstring|key$/i;
const NAMES_AN_ID = /ids?$/i;

function redactFields(fields: Record<string, unknown>): Record<string, unknown> {
  return redactRecord(fields, 0);
}

function redactRecord(record: object, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).map(([name, value]) => [
      name,
      isSensitive(name, value) ? REDACTED : redactValue(value, depth + 1),
    ]),
  );
}

function isSensitive(name: string, value: unknown): boolean {
  if (typeof value !== 'string' && typeof value !== 'object') return false;
  return value !== null && SENSITIVE.test(name) && !NAMES_AN_ID.test(name);
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth > DEPTH_MAX) return '[deeper]';
  if (value instanceof Error) return describeError(value, depth);
  if (value instanceof Date) return value;
  // Bytes are hashes, keys or sealed values: none of them helps a reader of logs.
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return value.map((item) => redactValue(item, depth + 1));
  return redactRecord(value, depth);
}

/** Only these properties: database errors carry the row's values in others. */
function describeError(error: Error, depth: number): Record<string, unknown> {
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: withoutParameters(error.message),
    stack: withoutParameters(error.stack ?? ''),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.cause === undefined ? {} : { cause: redactValue(error.cause, depth + 1) }),
  };
}

/** Drizzle ends the message of a failed query with its parameters, which are what callers sent. */
const withoutParameters = (text: string) => text.replace(/\nparams: [\s\S]*?(?=\n {4}at |$)/g, '');

const PREFIX_LENGTH_MAX = 64;
const VALUE = new RegExp(`_[0-9A-Za-z]{${SUFFIX_LENGTH}}`, 'g');
const JWT = /eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g;
/** Operators' own keys are exempt from the checksum (contract.md, environment), so here the shape is enough. */
const SECRET_KEY = /sk_[A-Za-z0-9_]{40,}/g;
const WEBHOOK_SECRET = /whsec_[A-Za-z0-9+/=]{16,}/g;
const URL_PASSWORD = /:\/\/([^\s"/:@]*):[^\s"/@]+@/g;

/** Masks every credential in a text, also inside a longer word: by its checksum, or by its shape where it has none. */
export function maskCredentials(text: string): string {
  return maskValues(text)
    .replace(SECRET_KEY, `${PREFIXES.secretKey}${REDACTED}`)
    .replace(WEBHOOK_SECRET, `whsec_${REDACTED}`)
    .replace(JWT, REDACTED)
    .replace(URL_PASSWORD, `://$1:${REDACTED}@`);
}

function maskValues(text: string): string {
  let masked = '';
  let copied = 0;
  VALUE.lastIndex = 0;
  for (let match = VALUE.exec(text); match; match = VALUE.exec(text)) {
    const end = match.index + 1 + SUFFIX_LENGTH;
    const start = valueStart(text, match.index, end);
    // The next candidate may begin within this one: a value's body holds no underscore, but what only looks like it may.
    VALUE.lastIndex = start === null ? match.index + 1 : end;
    if (start === null) continue;
    masked += `${text.slice(copied, match.index + 1)}${REDACTED}`;
    copied = end;
  }
  return masked + text.slice(copied);
}

/**
 * Where a value that ends at `end` begins, or null. Every beginning of the prefix is tried: in JSON a line break before
 * a value is written `\n`, and its `n` would spoil the checksum of the longest one.
 */
function valueStart(text: string, underscore: number, end: number): number | null {
  for (let start = underscore; start >= 0 && underscore - start < PREFIX_LENGTH_MAX; start--) {
    if (parseValue(text.slice(start, end))) return start;
    if (!/[a-z0-9_]/.test(text[start] ?? '')) return null;
  }
  return null;
}

/** Says once that something fails, and where there is something to say of it, that it no longer does. */
export interface Complaint {
  failed(err: unknown): void;
  succeeded(): void;
}

/** What is tried again every moment would otherwise fill the log with the same line, as when the database is down. */
export function createComplaint(
  logger: Pick<Logger, 'error' | 'info'>,
  { failing, again }: { failing: string; again?: string },
  facts: object = {},
): Complaint {
  let isFailing = false;
  return {
    failed(err) {
      if (!isFailing) logger.error({ err, ...facts }, failing);
      isFailing = true;
    },
    succeeded() {
      if (isFailing && again !== undefined) logger.info(facts, again);
      isFailing = false;
    },
  };
}
