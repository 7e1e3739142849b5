/** `countersign import-keys`: imports a file of API keys of any length, and goes on where it was cut off. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Countersign, Inputs } from '../client/index.ts';
import { PREFIXES, parseValue } from './crypto/format.ts';
import { IMPORT_ITEMS_MAX, readImportItem, START_LENGTH_MAX } from './domain/api-key-imports.ts';
import { CountersignError, type ErrorCode } from './errors.ts';
import {
  type KeyRecord,
  type Place,
  type RecordFormat,
  readColumns,
  readCsv,
  readNdjson,
} from './key-records.ts';

type ImportInput = Inputs['apiKeys']['import'];
type ImportItem = ImportInput['items'][number];
type Shape = NonNullable<ImportInput['shapes']>[number];

export interface ImportKeysOptions {
  /** `-` is standard input. */
  file: string;
  /** Without it, CSV where the file is called so, and else NDJSON. */
  format?: RecordFormat | undefined;
  shapePrefix?: string[] | undefined;
  shapeLength?: number | undefined;
  /** A file for what was refused, as NDJSON. */
  report?: string | undefined;
  /** Says what each line says by itself, and sends nothing. */
  dryRun?: boolean | undefined;
}

export interface ImportKeysTotals {
  dryRun: boolean;
  /** Records of the whole file, those of a call that was cut off too. */
  records: number;
  imported: number;
  /** Those that were there already, or had arrived when an earlier call was cut off. */
  existing: number;
  refused: number;
  /** In a dry run: those that would be sent. */
  sendable: number;
}

/** What was refused, by line: never with the key. */
export interface RefusedLine {
  line: number;
  code: ErrorCode;
  message: string;
  field: string | null;
}

export interface ImportKeysTerminal {
  stdin: AsyncIterable<Buffer | string>;
  /** Told how far it is after each batch; `percent` where the length of the file is known. */
  progress(totals: ImportKeysTotals, percent: number | null): void;
  refused(refusal: RefusedLine): void;
  note(text: string): void;
}

/** Batches on their way at once. They may travel in one request, so all of them must fit into its megabyte. */
const IN_FLIGHT_MAX = 4;
const BATCH_BYTES_MAX = 200_000;
const TIMEOUT_MS = 120_000;

/** Characters of a value after its prefix that people recognise it by. */
const START_LENGTH = 6;

/**
 * Imports a file batch by batch. Raw values are hashed here and never sent. How far it has come is kept in
 * `<file>.progress`, which goes when all is done: called again after it was cut off, it goes on there; of what
 * was on its way, those that had arrived exist.
 *
 * @param connect is called when there is something to send.
 * @param url of the server, to which alone the progress applies.
 */
export async function importKeys(
  connect: () => Promise<Countersign>,
  url: string,
  options: ImportKeysOptions,
  terminal: ImportKeysTerminal,
): Promise<ImportKeysTotals> {
  const source = await openSource(options, terminal.stdin);
  const progress = await openProgress(source, url, options, terminal);
  const report = await openReport(options, progress.state.reportBytes);
  const { state } = progress;

  async function settle({ batch, sending }: Sent) {
    const answer = await sending;
    const refusals = refusalsOf(batch, answer);
    state.reportBytes += await report.append(refusals);
    for (const refusal of refusals) terminal.refused(refusal);
    addUp(state.totals, batch, refusals.length, answer);
    state.place = batch.end;
    await progress.save();
    terminal.progress(state.totals, source.size && Math.floor((100 * state.place.offset) / source.size));
  }

  try {
    const send = options.dryRun ? async () => null : createSender(await connect(), source.shapes);
    const sent: Sent[] = [];
    for await (const batch of batchesOf(source.records(state.place), source.shapes)) {
      const sending = send(batch);
      // One that fails while another is waited for is told of when its turn comes.
      sending.catch(() => {});
      sent.push({ batch, sending });
      if (sent.length >= IN_FLIGHT_MAX) await settle(sent.shift() as Sent);
    }
    for (const each of sent) await settle(each);
  } finally {
    await report.close();
  }
  await progress.done();
  return state.totals;
}

interface Source {
  /** Where it is, or null for standard input. */
  path: string | null;
  size: number | null;
  modifiedAt: number | null;
  format: RecordFormat;
  shapes: Shape[];
  records(from: Place): AsyncIterable<KeyRecord>;
}

async function openSource(
  options: ImportKeysOptions,
  stdin: AsyncIterable<Buffer | string>,
): Promise<Source> {
  const format = options.format ?? (options.file.endsWith('.csv') ? 'csv' : 'ndjson');
  const shapes = shapesOf(options);
  const read = format === 'csv' ? readCsv : readNdjson;
  if (options.file === '-') {
    const records = (from: Place) => read(asBuffers(stdin), from);
    return { path: null, size: null, modifiedAt: null, format, shapes, records };
  }
  const path = resolve(options.file);
  const file = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw refusal(`Cannot read '${options.file}': ${error.code}`);
  });
  if (!file.isFile()) throw refusal(`Cannot read '${options.file}': wanted a file`);
  const bytes = (start: number): AsyncIterable<Buffer> => createReadStream(path, { start });
  async function* records(from: Place) {
    const goesOn = format === 'csv' && from.offset > 0;
    yield* goesOn
      ? readCsv(bytes(from.offset), from, await readColumns(bytes(0)))
      : read(bytes(from.offset), from);
  }
  return { path, size: file.size, modifiedAt: file.mtimeMs, format, shapes, records };
}

async function* asBuffers(chunks: AsyncIterable<Buffer | string>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
}

function shapesOf({ shapePrefix = [], shapeLength }: ImportKeysOptions): Shape[] {
  const length = shapeLength === undefined ? {} : { length: shapeLength };
  if (shapePrefix.length > 0) return shapePrefix.map((prefix) => ({ prefix, ...length }));
  return shapeLength === undefined ? [] : [length];
}

/** Records that are sent together, and what is told of each. */
interface Batch {
  end: Place;
  /** In the order of the file: each is the next item, or was refused here. */
  lines: { line: number; refusal: Refusal | null }[];
  items: ImportItem[];
}

type Refusal = Omit<RefusedLine, 'line'>;

async function* batchesOf(
  records: AsyncIterable<KeyRecord>,
  shapes: readonly Shape[],
): AsyncGenerator<Batch> {
  let batch: Batch | undefined;
  let bytes = 0;
  for await (const { line, end, content } of records) {
    const read =
      'problem' in content ? { refusal: invalid(content.problem) } : itemOf(content.fields, shapes);
    const size = 'item' in read ? Buffer.byteLength(JSON.stringify(read.item)) : 0;
    if (batch && (batch.lines.length === IMPORT_ITEMS_MAX || bytes + size > BATCH_BYTES_MAX)) {
      yield batch;
      batch = undefined;
    }
    if (!batch) {
      batch = { end, lines: [], items: [] };
      bytes = 0;
    }
    batch.end = end;
    bytes += size;
    batch.lines.push({ line, refusal: 'refusal' in read ? read.refusal : null });
    if ('item' in read) batch.items.push(read.item);
  }
  if (batch) yield batch;
}

const invalid = (message: string, field: string | null = null): Refusal => ({
  code: 'invalid_input',
  message,
  field,
});

/** What is sent of a record: a raw value becomes its hash, and what would be refused anyway stays here. */
function itemOf(fields: Fields, shapes: readonly Shape[]): { item: ImportItem } | { refusal: Refusal } {
  const hashed = fields['value'] === undefined ? { fields } : withHash(fields, shapes);
  if ('refusal' in hashed) return hashed;
  const read = readImportItem(hashed.fields);
  // What was read is what the schema made of it; what is sent is what it was made from.
  if ('key' in read) return { item: hashed.fields as ImportItem };
  const { code, message, field } = read.refusal;
  return { refusal: { code, message, field } };
}

type Fields = Record<string, unknown>;

function withHash(
  { value, ...fields }: Fields,
  shapes: readonly Shape[],
): { fields: Fields } | { refusal: Refusal } {
  const refuse = (what: string) => ({ refusal: invalid(`Cannot import API key: ${what}`, 'value') });
  if (fields['hash'] !== undefined) return refuse("wanted one of 'hash' and 'value', found both");
  if (typeof value !== 'string' || value === '') return refuse("wanted 'value' to be text");
  const prefix = lookedUpBy(value, shapes);
  if (prefix === null) {
    return refuse(
      "wanted a 'value' of a shape given by --shape-prefix or --shape-length, beginning as no other kind of ours does: it would never be looked up",
    );
  }
  const start = startOf(value, prefix);
  const hash = createHash('sha256').update(value).digest('hex');
  return { fields: { ...(start !== null && { start }), ...fields, hash } };
}

const RESERVED = Object.values(PREFIXES).filter((prefix) => prefix !== PREFIXES.apiKey);

/** The prefix by which the server will look a value up, as of our own format or of a shape; null where it will not. */
function lookedUpBy(value: string, shapes: readonly Shape[]): string | null {
  if (RESERVED.some((prefix) => value.startsWith(prefix))) return null;
  const own = parseValue(value);
  if (own) return own.prefix;
  const shape = shapes.find((each) => fits(each, value));
  return shape ? (shape.prefix ?? '') : null;
}

/** A length alone does not make an imported value of what begins as ours do. */
function fits({ prefix = '', length }: Shape, value: string): boolean {
  if (!value.startsWith(prefix) || (length !== undefined && length !== value.length)) return false;
  return prefix.startsWith(PREFIXES.apiKey) || !value.startsWith(PREFIXES.apiKey);
}

/** As many characters after the prefix as of our own values, and never more than a quarter of them. */
export function startOf(value: string, prefix: string): string | null {
  const shown = Math.min(START_LENGTH, Math.floor((value.length - prefix.length) / 4));
  const start = value.slice(0, Math.min(prefix.length + shown, START_LENGTH_MAX));
  return /^[\x21-\x7e]*$/.test(start) ? start : null;
}

type Answer = Awaited<ReturnType<Countersign['apiKeys']['import']>>;

/** A batch and its answer; null where nothing of it was sent. */
interface Sent {
  batch: Batch;
  sending: Promise<Answer | null>;
}

/** Without idempotency keys: what was carried out is found to exist, and a million answers need not be kept for a day. */
function createSender(countersign: Countersign, shapes: Shape[]) {
  return async ({ items }: Batch): Promise<Answer | null> =>
    items.length === 0 ? null : countersign.apiKeys.import({ items, shapes }, { timeoutMs: TIMEOUT_MS });
}

/** What was refused of a batch, here or there, in the order of the file. */
function refusalsOf({ lines }: Batch, answer: Answer | null): RefusedLine[] {
  const answered = answer?.results.values();
  return lines.flatMap(({ line, refusal }) => {
    if (refusal) return [{ line, ...refusal }];
    const result = answered?.next().value;
    if (result?.outcome !== 'refused') return [];
    const { code, message, field } = result;
    return [{ line, code, message, field }];
  });
}

function addUp(totals: ImportKeysTotals, { lines, items }: Batch, refused: number, answer: Answer | null) {
  totals.records += lines.length;
  totals.imported += answer?.imported ?? 0;
  totals.existing += answer?.existing ?? 0;
  totals.refused += refused;
  if (totals.dryRun) totals.sendable += items.length;
}

/** How far a file has come. */
interface State {
  place: Place;
  /** How much of the report is about what was done. */
  reportBytes: number;
  totals: ImportKeysTotals;
}

interface Progress {
  state: State;
  save(): Promise<void>;
  /** All is done: there is nothing to go on with. */
  done(): Promise<void>;
}

async function openProgress(
  source: Source,
  url: string,
  options: ImportKeysOptions,
  { note }: ImportKeysTerminal,
): Promise<Progress> {
  const fresh: State = {
    place: { offset: 0, lines: 0 },
    reportBytes: 0,
    totals: {
      dryRun: options.dryRun ?? false,
      records: 0,
      imported: 0,
      existing: 0,
      refused: 0,
      sendable: 0,
    },
  };
  if (source.path === null || options.dryRun) return { state: fresh, save: nothing, done: nothing };

  const path = `${source.path}.progress`;
  const { size, modifiedAt, format, shapes } = source;
  const of = JSON.stringify([
    url,
    size,
    modifiedAt,
    format,
    shapes,
    options.report && resolve(options.report),
  ]);
  const saved = await readSaved(path);
  const state = saved?.of === of ? saved.state : fresh;
  if (saved && state === fresh)
    note(`'${path}' is of another call, or the file has changed since: starting anew`);
  if (state.place.offset > 0) note(`Going on after line ${state.place.lines} of '${options.file}'`);
  const save = () => replaceFile(path, JSON.stringify({ of, state }));
  await save();
  return { state, save, done: () => rm(path, { force: true }) };
}

const nothing = () => Promise.resolve();

async function readSaved(path: string): Promise<{ of: string; state: State } | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return null;
  }
}

/** Whole or not at all, whenever this process is killed. */
async function replaceFile(path: string, text: string): Promise<void> {
  try {
    await writeFile(`${path}.new`, text, { mode: 0o600 });
    await rename(`${path}.new`, path);
  } catch (error) {
    throw refusal(`Cannot write '${path}': ${(error as NodeJS.ErrnoException).code}`);
  }
}

interface Report {
  /** Answers how many bytes it has grown by. */
  append(refusals: readonly RefusedLine[]): Promise<number>;
  close(): Promise<void>;
}

/** The file of what was refused, cut to what is already about lines that are done. */
async function openReport({ file, report: path }: ImportKeysOptions, bytes: number): Promise<Report> {
  if (path === undefined) return { append: async () => 0, close: nothing };
  if (resolve(path) === resolve(file)) throw refusal(`Cannot write the report over '${file}'`);
  const report = await openAt(path, bytes);
  let end = bytes;
  return {
    async append(refusals) {
      const text = Buffer.from(refusals.map((refused) => `${JSON.stringify(refused)}\n`).join(''));
      await report.write(text, 0, text.length, end);
      end += text.length;
      return text.length;
    },
    close: () => report.close(),
  };
}

async function openAt(path: string, bytes: number): Promise<FileHandle> {
  const report = await open(path, bytes === 0 ? 'w' : 'r+', 0o600).catch((error: NodeJS.ErrnoException) => {
    throw refusal(`Cannot write '${path}': ${error.code}`);
  });
  await report.truncate(bytes);
  return report;
}

const refusal = (message: string) => new CountersignError('invalid_input', message);
