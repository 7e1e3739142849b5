/** `countersign apply`: brings machines and machine scopes to what a file says, and leaves each new secret in a file. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Countersign, Outputs } from '../client/index.ts';
import { description, name, ttlSeconds } from './domain/fields.ts';
import { edgeScopes } from './domain/machine-scopes.ts';
import { assertTtls, createMachineInput, MACHINE_SCOPES_MAX } from './domain/machines.ts';
import { PAGE_SIZE_MAX, type Page } from './domain/pages.ts';
import { rotationPolicy } from './domain/rotation-policies.ts';
import { CountersignError } from './errors.ts';
import { translate } from './translate.ts';

type Machine = Outputs['machines']['get'];

const MACHINES_MAX = 1000;

const machine = z.strictObject({
  name,
  description: description.nullish(),
  defaultTokenTtlSeconds: ttlSeconds.optional(),
  maxTokenTtlSeconds: ttlSeconds.optional(),
  mayVerify: z.boolean().optional(),
  rotation: rotationPolicy.nullish(),
  /** Machines, of this file or the server's, that this one may call. */
  calls: z
    .array(z.strictObject({ machine: name, scopes: edgeScopes.default([]) }))
    .max(MACHINE_SCOPES_MAX)
    .default([]),
});

const machinesFile = z
  .strictObject({ machines: z.array(machine).max(MACHINES_MAX) })
  .superRefine((file, { addIssue }) => {
    const refuse = (path: PropertyKey[], message: string) => addIssue({ code: 'custom', path, message });
    const names = new Set<string>();
    for (const [index, { name, calls }] of file.machines.entries()) {
      // In one case, as some file systems have it: two machines must not share a file.
      if (names.has(name.toLowerCase())) refuse(['machines', index, 'name'], 'wanted each name once');
      names.add(name.toLowerCase());
      const called = new Set(calls.map((call) => call.machine));
      if (called.size < calls.length) refuse(['machines', index, 'calls'], 'wanted each machine once');
      if (called.has(name)) refuse(['machines', index, 'calls'], 'wanted other machines than itself');
    }
  });

type WantedMachine = z.output<typeof machine>;

export interface ApplyOptions {
  file: string;
  /** The folder for `<name>.env`, one for each machine that is created. */
  writeEnv?: string | undefined;
  /** Says what would change, and changes nothing. */
  dryRun?: boolean | undefined;
  /** Takes away what the file's machines may call beyond what it lists. */
  prune?: boolean | undefined;
}

export interface Change {
  action: 'create' | 'update' | 'allow' | 'change_scopes' | 'disallow';
  machine: string;
  /** The machine called. */
  to?: string;
  /** The fields that differ. */
  fields?: string[];
  scopes?: string[];
}

export interface ApplyReport {
  dryRun: boolean;
  /** What was changed, or would be. */
  changes: Change[];
  /** Machines that are there and have no file in the folder: their secrets cannot be shown again. */
  withoutEnvFile: string[];
  /** Machines that may call what the file does not list. */
  unlisted: { machine: string; to: string }[];
}

interface Step {
  change: Change;
  run: () => Promise<unknown>;
}

/**
 * Applies a file; machines are matched by name. Applied a second time it changes nothing. What the server would refuse
 * of it, as things stand there, is refused before the first change, and in a dry run. What others change meanwhile, or a
 * disk, may still stop it on its way: applied again, it goes on from there.
 *
 * @param url that services will call, for their files.
 * @param done is told of each change once it is made.
 */
export async function applyMachines(
  countersign: Countersign,
  options: ApplyOptions,
  url: string,
  done: (change: Change) => void,
): Promise<ApplyReport> {
  const wanted = await readMachinesFile(options.file);
  const there = await allPages((page) => countersign.machines.list(page));
  const ids = new Map(there.map(({ name, id }) => [name, id]));
  refuseUnknown(wanted, ids);
  const before = new Map(there.map((machine) => [machine.name, machine]));
  for (const machine of wanted) refuseTtls(machine, before.get(machine.name));
  const creating = wanted.filter(({ name }) => !ids.has(name));
  refuseUnfitNames(creating);

  const steps: Step[] = creating.map((machine) => ({
    change: { action: 'create', machine: machine.name },
    run: async () =>
      ids.set(machine.name, await createMachine(countersign, machine, options.writeEnv ?? '', url)),
  }));
  for (const machine of wanted) {
    const found = before.get(machine.name);
    if (found) steps.push(...updateSteps(countersign, machine, found));
  }
  const scopes = await planScopes(countersign, wanted, ids, options.prune ?? false);
  steps.push(...scopes.steps);

  if (!options.dryRun) {
    if (creating.length > 0) await prepareFolder(options.writeEnv, creating);
    for (const { change, run } of steps) {
      await run();
      done(change);
    }
  }
  return {
    dryRun: options.dryRun ?? false,
    changes: steps.map(({ change }) => change),
    withoutEnvFile: there
      .map(({ name }) => name)
      .filter((name) => lacksEnvFile(name, wanted, options.writeEnv)),
    unlisted: scopes.unlisted,
  };
}

/** What to take away and to allow, in that order: a machine that may call no more can call another instead. */
async function planScopes(
  countersign: Countersign,
  wanted: WantedMachine[],
  ids: ReadonlyMap<string, string>,
  prune: boolean,
): Promise<{ steps: Step[]; unlisted: ApplyReport['unlisted'] }> {
  const idOf = (name: string) => ids.get(name) ?? '';
  const names = new Map([...ids].map(([name, id]) => [id, name]));
  const steps: Step[] = [];
  const unlisted: ApplyReport['unlisted'] = [];
  for (const { name: machine, calls } of wanted) {
    const scopesTo = await scopesFrom(countersign, ids.get(machine), names);
    const changes = calls.map((call) => scopeChange(machine, call, scopesTo.get(call.machine)));
    for (const call of calls) scopesTo.delete(call.machine);
    const others = [...scopesTo.keys()];
    if (prune) changes.unshift(...others.map((to): Change => ({ action: 'disallow', machine, to })));
    else {
      refuseTooMany(machine, calls.length + others.length);
      unlisted.push(...others.map((to) => ({ machine, to })));
    }
    for (const change of changes)
      if (change) steps.push({ change, run: () => makeScopeChange(countersign, change, idOf) });
  }
  return { steps, unlisted };
}

/** Whom a machine may call now, and with which scopes; nobody, if it is not there. */
async function scopesFrom(
  countersign: Countersign,
  fromMachineId: string | undefined,
  names: ReadonlyMap<string, string>,
): Promise<Map<string, string[]>> {
  if (fromMachineId === undefined) return new Map();
  const edges = await allPages((page) => countersign.machineScopes.list({ ...page, fromMachineId }));
  return new Map(edges.map(({ toMachineId, scopes }) => [names.get(toMachineId) ?? toMachineId, scopes]));
}

async function readMachinesFile(path: string): Promise<WantedMachine[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw refusal(`Cannot read '${path}': ${error.code}`);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw refusal(`Cannot read '${path}': wanted valid JSON`);
  }
  const parsed = machinesFile.safeParse(json);
  if (parsed.success) return parsed.data.machines;
  const { message, field } = translate(parsed.error, '', json);
  throw refusal(`${path}: ${message}`, field);
}

function refuseUnknown(wanted: WantedMachine[], ids: ReadonlyMap<string, string>) {
  const known = new Set([...ids.keys(), ...wanted.map(({ name }) => name)]);
  for (const { name, calls } of wanted) {
    const unknown = calls.find((call) => !known.has(call.machine));
    if (unknown) {
      throw refusal(
        `Cannot let '${name}' call '${unknown.machine}': neither the file nor the server has a machine of that name`,
      );
    }
  }
}

function refuseTtls({ name, calls: _, ...fields }: WantedMachine, before: Machine | undefined) {
  const given = withoutUndefined(fields);
  try {
    assertTtls(before ? { ...before, ...given } : createMachineInput.parse({ name, ...given }));
  } catch (error) {
    throw error instanceof CountersignError ? refusal(`'${name}': ${error.message}`, error.field) : error;
  }
}

function refuseTooMany(machine: string, calls: number) {
  if (calls <= MACHINE_SCOPES_MAX) return;
  throw refusal(
    `Cannot let '${machine}' call more machines: wanted at most ${MACHINE_SCOPES_MAX} with those that it may call and the file does not list, found ${calls}`,
  );
}

/** Walks a list to its end. */
async function allPages<T>(
  list: (page: { limit: number; cursor?: string }) => Promise<Page<T>>,
): Promise<T[]> {
  const all: T[] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page: Page<T> = await list({ limit: PAGE_SIZE_MAX, ...(cursor && { cursor }) });
    all.push(...page.data);
    cursor = page.nextCursor;
  }
  return all;
}

function updateSteps(countersign: Countersign, wanted: WantedMachine, before: Machine): Step[] {
  const { name, calls: _, ...fields } = wanted;
  const differing = Object.entries(fields).filter(
    ([field, value]) =>
      value !== undefined && !isDeepStrictEqual(value, before[field as keyof typeof fields]),
  );
  if (differing.length === 0) return [];
  return [
    {
      change: { action: 'update', machine: name, fields: differing.map(([field]) => field) },
      run: () => countersign.machines.update({ id: before.id, ...Object.fromEntries(differing) }),
    },
  ];
}

function scopeChange(
  machine: string,
  call: WantedMachine['calls'][number],
  before: string[] | undefined,
): Change | null {
  const change = { machine, to: call.machine, scopes: call.scopes };
  if (!before) return { action: 'allow', ...change };
  const same = before.length === call.scopes.length && before.every((scope) => call.scopes.includes(scope));
  return same ? null : { action: 'change_scopes', ...change };
}

function makeScopeChange(
  { machineScopes }: Countersign,
  { action, machine, to = '', scopes = [] }: Change,
  idOf: (name: string) => string,
): Promise<unknown> {
  const edge = { fromMachineId: idOf(machine), toMachineId: idOf(to) };
  if (action === 'disallow') return machineScopes.delete(edge);
  return action === 'allow'
    ? machineScopes.create({ ...edge, scopes })
    : machineScopes.update({ ...edge, scopes });
}

/** Creates a machine and has its secret safe in a file before anything else is done. */
async function createMachine(
  countersign: Countersign,
  { calls: _, ...wanted }: WantedMachine,
  folder: string,
  url: string,
): Promise<string> {
  const path = envPath(folder, wanted.name);
  // Opened first: a full or read-only disk shows before there is a secret to lose.
  const unfinished = `${path}.${randomBytes(6).toString('hex')}`;
  const file = await open(unfinished, 'wx', 0o600);
  let created: (Machine & { secret?: string }) | undefined;
  try {
    created = await countersign.machines.create(withoutUndefined(wanted));
    await file.writeFile(`COUNTERSIGN_URL=${url}\nCOUNTERSIGN_MACHINE_SECRET_KEY=${created.secret ?? ''}\n`);
    await file.sync();
    await rename(unfinished, path);
    return created.id;
  } catch (error) {
    await rm(unfinished, { force: true });
    if (created) await countersign.machines.delete({ id: created.id });
    throw error;
  } finally {
    await file.close();
  }
}

function refuseUnfitNames(creating: WantedMachine[]) {
  const unfit = creating.find(({ name }) => !/^[A-Za-z0-9_][A-Za-z0-9._ -]*$/.test(name));
  if (unfit) {
    throw refusal(
      `Cannot create '${unfit.name}': wanted a name that can name its file, of letters, digits, '.', '_', '-' and spaces`,
    );
  }
}

async function prepareFolder(folder: string | undefined, creating: WantedMachine[]): Promise<void> {
  if (folder === undefined) {
    const names = creating.map(({ name }) => `'${name}'`).join(', ');
    throw refusal(`Cannot create ${names}: wanted --write-env with the folder to leave their secrets in`);
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
}

function lacksEnvFile(name: string, wanted: WantedMachine[], folder: string | undefined): boolean {
  if (folder === undefined || !wanted.some((machine) => machine.name === name)) return false;
  return !existsSync(envPath(folder, name));
}

const envPath = (folder: string, name: string) => join(folder, `${name}.env`);

/** Under `exactOptionalPropertyTypes` a field that is left out and one that is undefined are two things. */
const withoutUndefined = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };

const refusal = (message: string, field?: string) =>
  new CountersignError('invalid_input', message, { field });
