import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatValue, PREFIXES } from '../../server/crypto/format.ts';
import { createLogger, type Logger, maskCredentials } from '../../server/logger.ts';

const newValue = (prefix: string = PREFIXES.apiKey) => formatValue(prefix, randomBytes(32));
const JWT = `eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtY2hfMSJ9.${'s'.repeat(86)}`;

/** What a logger writes while `work` runs. */
function written(work: (logger: Logger) => void): string {
  let text = '';
  work(createLogger('trace', { write: (line) => (text += line) }));
  return text;
}

describe('createLogger()', () => {
  it('writes one JSON object a line, with level and time in words', () => {
    const line = JSON.parse(written((logger) => logger.info({ requestId: 'req_1' }, 'request')));
    expect(line).toEqual({ level: 'info', time: expect.any(String), requestId: 'req_1', msg: 'request' });
  });

  it.each([
    'authorization',
    'Cookie',
    'secret',
    'accessToken',
    'credential',
    'password',
    'masterKey',
    'connectionString',
  ])('redacts the field %s however deep it is', (name) => {
    const text = written((logger) => logger.info({ [name]: 'hunter2', a: { b: [{ [name]: 'hunter2' }] } }));
    expect(text).not.toContain('hunter2');
    expect(text.match(/\[redacted\]/g)).toHaveLength(2);
  });

  it('keeps ids and counts of what it redacts', () => {
    const text = written((logger) => logger.info({ secretKeyId: 'sk_1', tokenIds: ['mt_1'], tokens: 3 }));
    expect(JSON.parse(text)).toMatchObject({ secretKeyId: 'sk_1', tokenIds: ['mt_1'], tokens: 3 });
  });

  it('masks a credential in whatever place it stands', () => {
    const value = newValue();
    const text = written((logger) => {
      logger.info({ path: `/x?key=${value}&y`, list: [value], [value]: 1 }, `found ${value}`);
      logger.child({ note: value }).info('%s', value);
      logger.error(new Error(`refused\n${value}`, { cause: new Error(value) }));
    });
    expect(text).not.toContain(value);
    expect(text).toContain('/x?key=ak_[redacted]&y');
  });

  it('logs of an error its name, message, code and causes, and no other property', () => {
    const cause = Object.assign(new Error('inner'), { code: 'E_INNER', detail: 'Key (name)=(hunter2)' });
    const error = new Error('Failed query: select 1\nparams: hunter2,\nhunter2', { cause });
    const text = written((logger) => logger.error({ err: error }, 'failed'));
    expect(text).not.toContain('hunter2');
    const { err } = JSON.parse(text);
    expect(err).toMatchObject({
      type: 'Error',
      message: 'Failed query: select 1',
      cause: { message: 'inner', code: 'E_INNER' },
    });
    expect(err.stack).toContain('\n    at ');
  });

  it('says of bytes only how many', () => {
    expect(written((logger) => logger.info({ hash: Buffer.from('hunter2') }))).toContain('[7 bytes]');
  });
});

describe('maskCredentials()', () => {
  it('masks every value of every prefix inside any text', () => {
    const prefix = fc.constantFrom(...Object.values(PREFIXES), 'acme_live_');
    const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(fc.string(), prefix, bytes, fc.string(), (before, kind, content, after) => {
        const value = formatValue(kind, content);
        expect(maskCredentials(JSON.stringify(before + value + after))).not.toContain(value);
      }),
    );
  });

  it('masks JWTs, webhook secrets, chosen keys and passwords in URLs', () => {
    const chosen = `sk_${'my_own_key_'.repeat(4)}`;
    const webhookSecret = `whsec_${randomBytes(24).toString('base64')}`;
    expect(maskCredentials(`${JWT} ${chosen} ${webhookSecret} postgres://app:hunter2@db/x`)).toBe(
      '[redacted] sk_[redacted] whsec_[redacted] postgres://app:[redacted]@db/x',
    );
  });

  it('leaves ids and ordinary words as they are', () => {
    const text = `mch_${'A'.repeat(27)} ak_${'a'.repeat(32)} req_${'0'.repeat(32)} http://127.0.0.1:4400/`;
    expect(maskCredentials(text)).toBe(text);
  });

  it('leaves what has the shape of a value and not its checksum', () => {
    const value = newValue();
    const other = value.slice(0, -1) + (value.endsWith('0') ? '1' : '0');
    expect(maskCredentials(other)).toBe(other);
  });
});
