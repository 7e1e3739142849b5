/** `countersign import clerk`: machines and API keys, with the secrets they have, from Clerk's Backend API. */
import { createHash } from 'node:crypto';
import type { Countersign, Inputs } from '../client/index.ts';
import { type ClerkApi, type ClerkApiKey, type ClerkMachine, createClerkApi } from './clerk-api.ts';
import { PREFIXES } from './crypto/format.ts';
import { CountersignError, type ErrorCode } from './errors.ts';
import { startOf } from './import-keys.ts';

export interface ImportClerkOptions {
  apiUrl: string;
  clerkSecretKey: string;
}

export interface ImportClerkReport {
  dryRun: boolean;
  machines: Tally;
  machineScopes: Tally;
  apiKeys: Tally;
  /** Users, organizations and machines whose API keys were asked for. */
  subjects: number;
  /** As many as there were when it began. */
  subjectsTotal: number;
  /** What was not imported and why: the first thousand. */
  left: Left[];
}

export interface Tally {
  /** In a dry run: what would be imported. */
  imported: number;
  /** There already, and left as it is. */
  existing: number;
  /** Not wanted: revoked, expired or of another type. */
  skipped: number;
  refused: number;
}

export interface Left {
  kind: 'machine' | 'machine_scope' | 'api_key';
  id: string;
  code: ErrorCode | 'revoked' | 'expired' | 'other_type' | 'unknown_form' | 'renamed';
  message: string;
}

export interface ImportClerkTerminal {
  progress(report: ImportClerkReport): void;
  note(text: string): void;
}

/** Subjects whose keys are read at the same time; Clerk's API lets fewer requests through. */
const WORKERS = 8;
const BATCH_MAX = 200;
const LEFT_MAX = 1000;
const TIMEOUT_MS = 120_000;

type KeyItem = Inputs['apiKeys']['import']['items'][number];
type Shape = { prefix: string; length: number };

/** What a secret is sent as. The value stays here. */
interface Hashed {
  hash: string;
  start?: string;
  shape: Shape;
}

/**
 * Imports machines, whom they may call, and the API keys of all machines, users and organizations. Secrets are hashed
 * here and never sent. What is there by its id is left as it is and its secret not fetched, so that after an end in the middle the
 * same call goes on.
 *
 * @param countersign is null for a dry run, which reads and counts, fetches no secret and sends nothing.
 */
export async function importClerk(
  countersign: Countersign | null,
  options: ImportClerkOptions,
  terminal: ImportClerkTerminal,
): Promise<ImportClerkReport> {
  const clerk = createClerkApi({
    url: options.apiUrl,
    secretKey: options.clerkSecretKey,
    note: terminal.note,
  });
  const run: Run = { clerk, countersign, terminal, report: emptyReport(countersign === null) };
  const machineIds = await importMachines(run);
  await importApiKeys(run, machineIds);
  return run.report;
}

interface Run {
  clerk: ClerkApi;
  countersign: Countersign | null;
  terminal: ImportClerkTerminal;
  report: ImportClerkReport;
}

const emptyTally = (): Tally => ({ imported: 0, existing: 0, skipped: 0, refused: 0 });

const emptyReport = (dryRun: boolean): ImportClerkReport => ({
  dryRun,
  machines: emptyTally(),
  machineScopes: emptyTally(),
  apiKeys: emptyTally(),
  subjects: 0,
  subjectsTotal: 0,
  left: [],
});

function leave({ report, terminal }: Run, left: Left) {
  if (report.left.length < LEFT_MAX) report.left.push(left);
  terminal.note(`${left.kind} ${left.id}: ${left.code}: ${left.message}`);
}

function refuse(run: Run, tally: Tally, kind: Left['kind'], id: string, error: unknown) {
  // What concerns the whole import and not this one thing ends it.
  if (!(error instanceof CountersignError) || ENDING.has(error.code)) throw error;
  tally.refused++;
  leave(run, { kind, id, code: error.code, message: error.message });
}

const ENDING: ReadonlySet<ErrorCode> = new Set([
  'unauthenticated',
  'forbidden',
  'network',
  'timeout',
  'unavailable',
  'storage_full',
  'internal',
]);

/** Machines first, then whom they may call, for that names both. Answers the ids. */
async function importMachines(run: Run): Promise<string[]> {
  const machines: ClerkMachine[] = [];
  for await (const machine of run.clerk.machines()) machines.push(machine);
  await inTurns(machines, async (machine) => {
    await importMachine(run, machine);
    run.terminal.progress(run.report);
  });
  const edges = machines.flatMap(({ id, scoped_machines }) =>
    scoped_machines.map((to) => [id, to.id] as const),
  );
  await inTurns(edges, ([from, to]) => importEdge(run, from, to));
  return machines.map(({ id }) => id);
}

async function importMachine(run: Run, machine: ClerkMachine) {
  const { countersign, clerk } = run;
  const tally = run.report.machines;
  const { id } = machine;
  if (!countersign) return void tally.imported++;
  try {
    if (await exists(countersign.machines.get({ id }))) return void tally.existing++;
    const hashed = hashedOf(await clerk.machineSecret(id));
    if (!hashed) {
      tally.skipped++;
      return leave(run, { kind: 'machine', id, code: 'unknown_form', message: UNKNOWN_FORM });
    }
    const item = {
      id,
      name: machine.name,
      defaultTokenTtlSeconds: machine.default_token_ttl,
      createdAt: machine.created_at,
      ...hashed,
    };
    const { outcome } = await importNamed(run, countersign, item);
    tally[outcome === 'imported' ? 'imported' : 'existing']++;
  } catch (error) {
    refuse(run, tally, 'machine', id, error);
  }
}

/** Clerk lets several machines have one name; here the later ones have the end of their id behind it. */
async function importNamed(run: Run, countersign: Countersign, item: Inputs['machines']['import']) {
  try {
    return await countersign.machines.import(item);
  } catch (error) {
    if (!(error instanceof CountersignError) || error.code !== 'name_taken') throw error;
    const name = `${item.name.slice(0, 240)} (${item.id.slice(-6)})`;
    const imported = await countersign.machines.import({ ...item, name });
    leave(run, { kind: 'machine', id: item.id, code: 'renamed', message: `Imported as '${name}'` });
    return imported;
  }
}

async function importEdge(run: Run, fromMachineId: string, toMachineId: string) {
  const { countersign, report } = run;
  const tally = report.machineScopes;
  if (!countersign) return void tally.imported++;
  try {
    await countersign.machineScopes.create({ fromMachineId, toMachineId });
    tally.imported++;
  } catch (error) {
    if (error instanceof CountersignError && error.code === 'already_exists') tally.existing++;
    else refuse(run, tally, 'machine_scope', `${fromMachineId} → ${toMachineId}`, error);
  }
}

async function importApiKeys(run: Run, machineIds: readonly string[]) {
  const batch = createBatch(run);
  run.report.subjectsTotal = machineIds.length + (await run.clerk.subjectCount());
  async function* subjects() {
    yield* machineIds;
    yield* run.clerk.userIds();
    yield* run.clerk.organizationIds();
  }
  await inTurns(subjects(), async (subject) => {
    for await (const key of run.clerk.apiKeys(subject)) await importApiKey(run, batch, key);
    run.report.subjects++;
    run.terminal.progress(run.report);
  });
  await batch.send();
}

async function importApiKey(run: Run, batch: Batch, key: ClerkApiKey) {
  const { countersign, clerk } = run;
  const tally = run.report.apiKeys;
  const unwanted = unwantedOf(key);
  if (unwanted) {
    tally.skipped++;
    return leave(run, { kind: 'api_key', id: key.id, ...unwanted });
  }
  if (!countersign) return void tally.imported++;
  try {
    const id = idOf(key);
    if (id !== undefined && (await exists(countersign.apiKeys.get({ id })))) return void tally.existing++;
    const hashed = hashedOf(await clerk.apiKeySecret(key.id));
    if (!hashed) {
      tally.skipped++;
      return leave(run, { kind: 'api_key', id: key.id, code: 'unknown_form', message: UNKNOWN_FORM });
    }
    batch.add(key.id, itemOf(key, hashed), hashed.shape);
  } catch (error) {
    refuse(run, tally, 'api_key', key.id, error);
  }
  if (batch.isFull()) await batch.send();
}

function unwantedOf({ revoked, expired, type }: ClerkApiKey): Pick<Left, 'code' | 'message'> | null {
  if (revoked) return { code: 'revoked', message: 'It is revoked at Clerk' };
  if (expired) return { code: 'expired', message: 'It has expired at Clerk' };
  if (type !== 'api_key') return { code: 'other_type', message: `Its type is '${type}'` };
  return null;
}

/** Ids of another form than ours are not kept. */
const idOf = ({ id }: ClerkApiKey) => (/^ak_[0-9a-f]{32}$/.test(id) ? id : undefined);

function itemOf(key: ClerkApiKey, { hash, start }: Hashed): KeyItem {
  const id = idOf(key);
  return {
    hash,
    subject: key.subject,
    name: key.name,
    ...(id !== undefined && { id }),
    ...(start !== undefined && { start }),
    description: key.description,
    scopes: key.scopes,
    claims: key.claims as NonNullable<KeyItem['claims']>,
    createdAt: key.created_at,
    createdBy: key.created_by,
    expiresAt: key.expiration,
  };
}

interface Batch {
  add(id: string, item: KeyItem, shape: Shape): void;
  isFull(): boolean;
  send(): Promise<void>;
}

/** API keys of several subjects, imported together as one event. */
function createBatch(run: Run): Batch {
  let items: KeyItem[] = [];
  let ids: string[] = [];
  let shapes = new Map<string, Shape>();

  async function send() {
    const { countersign, report } = run;
    if (!countersign || items.length === 0) return;
    const sending = { items, shapes: [...shapes.values()] };
    const sent = ids;
    [items, ids, shapes] = [[], [], new Map()];
    const answer = await countersign.apiKeys.import(sending, { timeoutMs: TIMEOUT_MS });
    report.apiKeys.imported += answer.imported;
    report.apiKeys.existing += answer.existing;
    for (const [index, result] of answer.results.entries()) {
      if (result.outcome !== 'refused') continue;
      report.apiKeys.refused++;
      const { code, message } = result;
      leave(run, { kind: 'api_key', id: sent[index] ?? '', code, message });
    }
  }

  return {
    add(id, item, shape) {
      items.push(item);
      ids.push(id);
      shapes.set(`${shape.prefix} ${shape.length}`, shape);
    },
    isFull: () => items.length >= BATCH_MAX,
    send,
  };
}

const UNKNOWN_FORM = "Its secret does not begin with 'ak_'";

/** Null for a secret of a form that Clerk is not known to give. */
function hashedOf(secret: string): Hashed | null {
  if (!secret.startsWith(PREFIXES.apiKey)) return null;
  const start = startOf(secret, PREFIXES.apiKey);
  return {
    hash: createHash('sha256').update(secret).digest('hex'),
    ...(start !== null && { start }),
    shape: { prefix: PREFIXES.apiKey, length: secret.length },
  };
}

async function exists(asking: Promise<unknown>): Promise<boolean> {
  try {
    await asking;
    return true;
  } catch (error) {
    if (error instanceof CountersignError && error.code === 'not_found') return false;
    throw error;
  }
}

/** Several at a time, none of them begun after one has failed. */
async function inTurns<T>(things: Iterable<T> | AsyncIterable<T>, work: (thing: T) => Promise<void>) {
  const iterator = (async function* () {
    yield* things;
  })();
  let failed = false;
  const turn = async () => {
    for (;;) {
      const { value, done } = await iterator.next();
      if (done || failed) return;
      try {
        await work(value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const turns = await Promise.allSettled(Array.from({ length: WORKERS }, turn));
  const failure = turns.find(({ status }) => status === 'rejected');
  if (failure?.status === 'rejected') throw failure.reason;
}
