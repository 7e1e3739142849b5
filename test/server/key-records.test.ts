import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Column, type KeyRecord, readColumns, readCsv, readNdjson } from '../../server/key-records.ts';

const START = { offset: 0, lines: 0 };

/** The bytes of a text in pieces of a size, so that records lie across them. */
async function* inChunks(text: string | Buffer, size = 7): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(text as string);
  for (let i = 0; i < bytes.length; i += size) yield bytes.subarray(i, i + size);
}

async function all(records: AsyncIterable<KeyRecord>): Promise<KeyRecord[]> {
  const found = [];
  for await (const record of records) found.push(record);
  return found;
}

const contents = async (records: AsyncIterable<KeyRecord>) =>
  (await all(records)).map(({ line, content }) =>
    'problem' in content ? [line, content.problem] : [line, content.fields],
  );

const HEADER = 'subject,name,scopes,claims,createdAt,enabled';

describe('readNdjson()', () => {
  it('yields what each line says, whatever its end, with its number; empty ones count and say nothing', async () => {
    const text =
      '\u{feff}{"name":"a"}\r\n\n{"name":"ü","createdAt":"2026-01-31T12:00:00+02:00"}\n{"expiresAt":7}';
    expect(await contents(readNdjson(inChunks(text), START))).toEqual([
      [1, { name: 'a' }],
      [3, { name: 'ü', createdAt: Date.UTC(2026, 0, 31, 10) }],
      [4, { expiresAt: 7 }],
    ]);
  });

  it('says of each bad line what is wrong, without its content, and goes on', async () => {
    const secret = 'acme_live_4f8a';
    const lines = [
      `{"value":"${secret}"`,
      `"${secret}"`,
      `["${secret}"]`,
      'null',
      `{"${secret}":1}`,
      `{"key":"${secret}"}`,
      `{"createdAt":"yesterday ${secret}"}`,
      '{"createdAt":"2026-01-31T12:00:00"}',
      '{"expiresAt":"2026-02-31T99:00:00Z"}',
      `{"name":"${'x'.repeat(64 * 1024)}"}`,
      '{"name":"last"}',
    ];
    const bytes = Buffer.concat([Buffer.from([0x22, 0xff, 0x22, 0x0a]), Buffer.from(lines.join('\n'))]);
    const found = await contents(readNdjson(inChunks(bytes, 1000), START));
    expect(found).toEqual([
      [1, 'Cannot read the record: wanted UTF-8'],
      [2, 'Cannot read the record: wanted valid JSON'],
      [3, 'Cannot read the record: wanted an object'],
      [4, 'Cannot read the record: wanted an object'],
      [5, 'Cannot read the record: wanted an object'],
      [6, expect.stringMatching(/^Cannot read the record: wanted no other fields than hash, value, /)],
      [7, expect.stringMatching(/^Cannot read the record: wanted no other fields than hash, value, /)],
      [8, "Cannot read the record: wanted 'createdAt' in milliseconds, or as in 2026-01-31T12:00:00Z"],
      [9, "Cannot read the record: wanted 'createdAt' in milliseconds, or as in 2026-01-31T12:00:00Z"],
      [10, "Cannot read the record: wanted 'expiresAt' in milliseconds, or as in 2026-01-31T12:00:00Z"],
      [11, expect.stringContaining('wanted at most 65536 bytes')],
      [12, { name: 'last' }],
    ]);
    expect(JSON.stringify(found)).not.toContain(secret);
  });

  it('keeps no more than one record of a line without an end', async () => {
    let yielded = 0;
    async function* endless() {
      for (; yielded < 2_000; yielded++) yield Buffer.alloc(64 * 1024, 'x');
    }
    const before = process.memoryUsage().arrayBuffers;
    expect(await contents(readNdjson(endless(), START))).toEqual([
      [1, expect.stringContaining('wanted at most 65536 bytes')],
    ]);
    expect(yielded).toBe(2_000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100 * 1024 * 1024);
  });
});

describe('readCsv()', () => {
  it('yields cells under the names of their columns, with quotes as RFC 4180 has them', async () => {
    const text = `${HEADER}\r\nuser_1,"a, ""b""",read write,"{""plan"":""pro""}",2026-01-31T12:00:00Z,false\r\n"user\n2",c,,,,\nuser_3,d,,,1700000000000,true`;
    expect(await contents(readCsv(inChunks(text), START))).toEqual([
      [
        2,
        {
          subject: 'user_1',
          name: 'a, "b"',
          scopes: ['read', 'write'],
          claims: { plan: 'pro' },
          createdAt: Date.UTC(2026, 0, 31, 12),
          enabled: false,
        },
      ],
      [3, { subject: 'user\n2', name: 'c' }],
      [5, { subject: 'user_3', name: 'd', createdAt: 1_700_000_000_000, enabled: true }],
    ]);
  });

  it('says of each bad record what is wrong, without its content', async () => {
    const text = 'subject,claims\nacme_1\nacme_2,{acme\nacme_3",x\n"acme_4"x,y\nuser_5,\n"acme_6,\nx\n';
    const found = await contents(readCsv(inChunks(text), START));
    expect(found).toEqual([
      [2, 'Cannot read the record: wanted 2 columns, found 1'],
      [3, "Cannot read the record: wanted 'claims' to be valid JSON"],
      [4, 'Cannot read the record: wanted quotes around what holds a quote, doubled'],
      [5, 'Cannot read the record: wanted quotes around what holds a quote, doubled'],
      [6, { subject: 'user_5' }],
      [7, 'Cannot read the record: wanted quotes around what holds a quote, doubled'],
    ]);
    expect(JSON.stringify(found)).not.toContain('acme');
  });

  it.each([
    ['acme_live_secret,user_1\n', 'column 1 is not'],
    ['name,acme_live_secret\n', 'column 2 is not'],
    ['name,name\n', 'each column of the first line once'],
    ['"name\n', 'column 1 is not'],
  ])('refuses a first line that names no columns, without repeating it: %j', async (text, told) => {
    for (const reading of [all(readCsv(inChunks(text), START)), readColumns(inChunks(text))]) {
      const thrown = await reading.then(
        () => undefined,
        (error: Error) => error,
      );
      expect(thrown).toMatchObject({ code: 'invalid_input', message: expect.stringContaining(told) });
      expect(thrown?.message).not.toContain('secret');
    }
  });

  it('readColumns() refuses an empty file', async () => {
    await expect(readColumns(inChunks(''))).rejects.toMatchObject({ code: 'invalid_input' });
    expect(await readColumns(inChunks('\u{feff}name,subject\r\nx,y\n'))).toEqual(['name', 'subject']);
  });
});

describe('any file', () => {
  const cell = fc.string({ unit: fc.constantFrom('a', 'ü', ',', '"', '\n', '\r\n', ' ', '1'), minLength: 1 });
  const sizes = fc.integer({ min: 1, max: 20 });

  it('of CSV is read as it was written, in pieces of any size, and from the end of any record on', async () => {
    const columns: Column[] = ['subject', 'name', 'description'];
    const quoted = (text: string) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(cell, cell, cell), { maxLength: 6 }), sizes, async (rows, size) => {
        const text = [columns, ...rows].map((row) => row.map(quoted).join(',')).join('\n');
        const bytes = Buffer.from(text);
        const records = await all(readCsv(inChunks(bytes, size), START));
        expect(records.map(({ content }) => content)).toEqual(
          rows.map((row) => ({
            fields: Object.fromEntries(columns.map((column, index) => [column, row[index]])),
          })),
        );
        for (const [index, { end }] of records.entries()) {
          const rest = readCsv(inChunks(bytes.subarray(end.offset), size), end, columns);
          expect(await all(rest)).toEqual(records.slice(index + 1));
        }
      }),
      { numRuns: 200 },
    );
  });

  it('of NDJSON is too', async () => {
    const record = fc.record({ name: fc.string({ unit: 'grapheme' }), claims: fc.jsonValue() });
    const written = fc.array(fc.tuple(record, fc.constantFrom('\n', '\r\n', '\n\n')), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(written, sizes, async (lines, size) => {
        const bytes = Buffer.from(lines.map(([fields, end]) => JSON.stringify(fields) + end).join(''));
        const records = await all(readNdjson(inChunks(bytes, size), START));
        expect(records.map(({ content }) => content)).toEqual(
          lines.map(([fields]) => ({ fields: JSON.parse(JSON.stringify(fields)) })),
        );
        for (const [index, { end }] of records.entries()) {
          const rest = readNdjson(inChunks(bytes.subarray(end.offset), size), end);
          expect(await all(rest)).toEqual(records.slice(index + 1));
        }
      }),
      { numRuns: 200 },
    );
  });
});
