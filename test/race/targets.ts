/** What is raced: credentials, and the one call after which none of them may verify any more, in every way there is. */
import { randomBytes } from 'node:crypto';

/** Calls a procedure at some server until one of them answers. */
// biome-ignore lint/suspicious/noExplicitAny: answers of every shape
export type Call = (path: string, input: object, credential?: string) => Promise<any>;

export interface Credential {
  kind: 'API key' | 'opaque token' | 'JWT';
  id: string;
  /** The body of a request that verifies it. */
  verifyBody: string;
}

export interface Target {
  /** The procedure that ends them. */
  way: string;
  credentials: Credential[];
  end(call: Call): Promise<unknown>;
}

/** Makes one target. */
export type Plan = (call: Call) => Promise<Target>;

const KEYS_PER_SUBJECT = 5;
const TOKENS_PER_MACHINE = 6;

/** What verifying a key has to look after beside it, most of the time nothing: a limit in Redis, credits in rows. */
const KEY_LIMITS = [
  {},
  { rateLimit: { count: 1_000_000, windowSeconds: 60 } },
  {},
  { credits: { remaining: 1_000_000 } },
];

const ELSEWHERE = ['203.0.113.0/24'];

/** Ways that end one key; then those that end all of a subject's. */
const KEY_WAYS: [way: string, input: (key: { id: string; secret: string }) => object][] = [
  ['apiKeys.revoke', ({ id }) => ({ id })],
  ['apiKeys.revokeByValue', ({ secret }) => ({ value: secret })],
  ['apiKeys.disable', ({ id }) => ({ id })],
  ['apiKeys.delete', ({ id }) => ({ id })],
  ['apiKeys.update', ({ id }) => ({ id, allowedCidrs: ELSEWHERE })],
  ['apiKeys.rotate', ({ id }) => ({ id })],
  ['apiKeys.rotate', ({ id }) => ({ id, compromised: true })],
];

/** So many of each kind are ended by value, and no more: one address may do that 60 times a minute. */
const BY_VALUE_MAX = 25;

/** The way whose turn it is, until its turns by value are used up; then the first in its place. */
function takingTurns<W extends readonly [way: string, ...rest: unknown[]]>(ways: readonly W[]) {
  let byValue = 0;
  return (turn: number): W | undefined => {
    const way = ways[turn];
    return way?.[0].endsWith('ByValue') && ++byValue > BY_VALUE_MAX ? ways[0] : way;
  };
}

const CREATED_BY = 'user_who_left';

const SUBJECT_WAYS: [way: string, input: (subject: string) => object][] = [
  ['apiKeys.revokeAll', (subject) => ({ subject })],
  ['apiKeys.revokeAll', (subject) => ({ subject, createdBy: CREATED_BY })],
  ['subjects.disable', (id) => ({ id })],
];

const TOKEN_WAYS: [way: string, input: (token: { id: string; token: string }) => object][] = [
  ['m2mTokens.revoke', ({ id }) => ({ id })],
  ['m2mTokens.revokeByValue', ({ token }) => ({ value: token })],
];

const MACHINE_WAYS: [way: string, input: (machine: string, to: string) => object][] = [
  ['m2mTokens.revokeAll', (machineId) => ({ machineId })],
  ['machines.disable', (id) => ({ id })],
  ['machines.delete', (id) => ({ id })],
  ['machines.rotateSecret', (id) => ({ id, compromised: true })],
  ['machineScopes.delete', (fromMachineId, toMachineId) => ({ fromMachineId, toMachineId })],
];

/** Plans for that many API keys, and half as many M2M tokens; in the end, JWTs whose signing key is retired. */
export function planTargets(keys: number): Plan[] {
  const plans = [...keyPlans(keys), ...tokenPlans(Math.ceil(keys / 2))];
  return [...shuffled(plans), retireSigningKey];
}

function keyPlans(keys: number): Plan[] {
  const plans: Plan[] = [];
  const keyWay = takingTurns(KEY_WAYS);
  for (let i = 0, left = keys; left > 0; i++) {
    const limits = KEY_LIMITS[i % KEY_LIMITS.length] as object;
    const way = keyWay(i % (KEY_WAYS.length + 1));
    const ofSubject = SUBJECT_WAYS[i % SUBJECT_WAYS.length] as (typeof SUBJECT_WAYS)[number];
    const count = way ? 1 : Math.min(KEYS_PER_SUBJECT, left);
    left -= count;
    plans.push((call) => (way ? makeKey(call, limits, ...way) : makeSubject(call, count, ...ofSubject)));
  }
  return plans;
}

const newName = () => randomBytes(9).toString('base64url');

async function makeKey(
  call: Call,
  limits: object,
  way: string,
  input: (typeof KEY_WAYS)[number][1],
): Promise<Target> {
  const key = await call('apiKeys.create', { name: newName(), subject: `user_${newName()}`, ...limits });
  return { way, credentials: [keyCredential(key)], end: (by) => by(way, input(key)) };
}

async function makeSubject(
  call: Call,
  count: number,
  way: string,
  input: (typeof SUBJECT_WAYS)[number][1],
): Promise<Target> {
  const subject = `org_${newName()}`;
  const make = () => call('apiKeys.create', { name: newName(), subject, createdBy: CREATED_BY });
  const keys = await Promise.all(Array.from({ length: count }, make));
  return { way, credentials: keys.map(keyCredential), end: (by) => by(way, input(subject)) };
}

const keyCredential = ({ id, secret }: { id: string; secret: string }): Credential => ({
  kind: 'API key',
  id,
  verifyBody: JSON.stringify({ credential: secret }),
});

function tokenPlans(tokens: number): Plan[] {
  const plans: Plan[] = [];
  const tokenWay = takingTurns(TOKEN_WAYS);
  for (let i = 0, left = tokens; left > 0; i++) {
    // Ways that end one token take their turns with those that end all of a machine's.
    const one = i % 2 === 0 ? undefined : tokenWay((i >> 1) % TOKEN_WAYS.length);
    const all = MACHINE_WAYS[(i >> 1) % MACHINE_WAYS.length] as (typeof MACHINE_WAYS)[number];
    const count = one ? 1 : Math.min(TOKENS_PER_MACHINE, left);
    const first = (i >> 1) % 2;
    left -= count;
    plans.push(async (call) => {
      const { machine, to, credentials, tokens: made } = await makeTokens(call, count, first);
      const [way, input] = one ? [one[0], one[1](made[0])] : [all[0], all[1](machine, to)];
      return { way, credentials, end: (by) => by(way, input) };
    });
  }
  return plans;
}

const FORMATS = ['opaque', 'jwt'] as const;

/** Tokens of a machine of their own, opaque and JWT in turn. */
async function makeTokens(call: Call, count: number, first: number) {
  const [from, { id: to }] = await Promise.all([
    call('machines.create', { name: newName() }),
    call('machines.create', { name: newName() }),
  ]);
  await call('machineScopes.create', { fromMachineId: from.id, toMachineId: to, scopes: [] });
  const formats = Array.from({ length: count }, (_, i) => FORMATS[(first + i) % 2]);
  const tokens = await Promise.all(
    formats.map((format) => call('m2mTokens.create', { format }, from.secret)),
  );
  const credentials = tokens.map(
    ({ id, token, format }): Credential => ({
      kind: format === 'jwt' ? 'JWT' : 'opaque token',
      id,
      verifyBody: JSON.stringify({ credential: token, audience: to }),
    }),
  );
  return { machine: from.id as string, to: to as string, tokens, credentials };
}

/** Ends every JWT there is: for after all others. */
const retireSigningKey: Plan = async (call) => {
  const way = 'signingKeys.emergencyRetire';
  const { credentials } = await makeTokens(call, 2 * TOKENS_PER_MACHINE, 0);
  const keys: { kid: string; state: string }[] = await call('signingKeys.list', {});
  const { kid = '' } = keys.find(({ state }) => state === 'active') ?? {};
  return {
    way,
    credentials: credentials.filter(({ kind }) => kind === 'JWT'),
    end: (by) => by(way, { kid }),
  };
};

function shuffled<T>(list: T[]): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j] as T, list[i] as T];
  }
  return list;
}
