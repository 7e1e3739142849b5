/**
 * Whether the time of an answer tells a value we know from one we do not. Three pairs: a live API key and a well-formed one
 * that nobody was given; as a machine asks, an M2M token for another machine and one that nobody was given, whose answers
 * read alike; and a wrong secret of an OAuth application that there is and of one that there is not. Requests of all kinds are sent one at a time over one connection, in an order by chance. In each
 * round the medians of a pair are compared; the noise is the same difference between two halves of the pair's first kind,
 * as root mean square over the rounds.
 */
import { createCountersign } from '../../client/index.ts';
import { PREFIXES } from '../../server/crypto/format.ts';
import { newValue } from '../../server/crypto/hashing.ts';
import { sortableId } from '../../server/crypto/ids.ts';
import { CREDENTIALS } from '../floors/floor.ts';
import { createKeys } from '../keys.ts';
import { type Connection, openConnections } from '../load.ts';
import { type MeasuredServer, SETUP_MS_MAX, startCountersign } from '../processes.ts';
import { formOf, toBuffer, verifyRequests } from '../requests.ts';
import { differenceResult, type Result } from '../results.ts';
import { median, rootMeanSquare, shuffled } from '../statistics.ts';

const ROUNDS = 25;
const ROUND_MS = 600;

interface Kind {
  requests: readonly Buffer[];
  /** 2 for answers of 2xx. */
  statusClass: number;
}

interface Pair {
  name: string;
  against: string;
  /** The first kind, in two halves that are measured like two kinds. */
  halves: readonly [Kind, Kind];
  other: Kind;
}

export async function measureTiming(): Promise<Result[]> {
  const server = await startCountersign({ env: { COUNTERSIGN_TRUSTED_PROXIES: '127.0.0.1/32' } });
  const pairs = await createPairs(server);
  const kinds = pairs.flatMap(({ halves, other }) => [...halves, other]);
  const [connection] = await openConnections(server.port, 1);
  if (!connection) throw new Error('Wanted a connection');
  await medians(connection, kinds);
  const rounds: Map<Kind, number>[] = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(await medians(connection, kinds));
  connection.close();
  await server.stop();
  return pairs.map((pair) => compare(pair, rounds));
}

function compare(
  { name, against, halves: [half, otherHalf], other }: Pair,
  rounds: Map<Kind, number>[],
): Result {
  const between = (a: Kind, b: Kind) => rounds.map((round) => (round.get(a) ?? 0) - (round.get(b) ?? 0));
  const noise = rootMeanSquare(between(half, otherHalf));
  return differenceResult({ name, against }, between(other, half), noise);
}

/** Sends as many of each kind as a round has time for; answers the median latency of each in µs. */
async function medians(connection: Connection, kinds: readonly Kind[]): Promise<Map<Kind, number>> {
  const micros = new Map<Kind, number[]>(kinds.map((kind) => [kind, []]));
  const end = performance.now() + ROUND_MS;
  for (let i = 0; performance.now() < end; i++) {
    for (const kind of shuffled(kinds)) {
      const request = kind.requests[i % kind.requests.length] as Buffer;
      const sentAt = performance.now();
      await connection.exchange(request, kind.statusClass);
      micros.get(kind)?.push((performance.now() - sentAt) * 1000);
    }
  }
  return new Map([...micros].map(([kind, values]) => [kind, median(values)]));
}

/** All asked by one machine, so that the caller's part is the same. */
async function createPairs(server: MeasuredServer): Promise<Pair[]> {
  const asking = await server.admin.machines.create({ name: 'asking', mayVerify: true });
  const known = await createKeys(server);
  const clients = await createClients(server);
  const elsewhere = await mintTokens(server, asking.id);
  const kind = (credentials: readonly string[]): Kind => ({
    requests: verifyRequests(asking.secret ?? '', credentials),
    statusClass: 2,
  });
  return [
    {
      name: 'timing-unknown-key',
      against: 'a live key',
      halves: [kind(known), kind(known)],
      other: kind(nobodys(PREFIXES.apiKey)),
    },
    {
      name: 'timing-token-for-another',
      against: 'an unknown token',
      halves: [kind(nobodys(PREFIXES.m2mToken)), kind(nobodys(PREFIXES.m2mToken))],
      other: kind(elsewhere),
    },
    {
      name: 'timing-unknown-client',
      against: 'a client with a wrong secret',
      halves: [wrongSecrets(clients), wrongSecrets(clients)],
      other: wrongSecrets(nobodysClients()),
    },
  ];
}

const CLIENTS = 50;
/** Who fails more often than 120 times a minute is told nothing but that: each request comes from an address of its own. */
const ADDRESSES = 4_000;

async function createClients({ admin }: MeasuredServer): Promise<string[]> {
  const ids: string[] = [];
  while (ids.length < CLIENTS) {
    const { clientId } = await admin.oauthApplications.create({
      name: `client ${ids.length}`,
      grantTypes: ['client_credentials'],
    });
    ids.push(clientId);
  }
  return ids;
}

const nobodysClients = () => Array.from({ length: CLIENTS }, () => sortableId('oauthapp_', Date.now()));

const wrongSecrets = (clientIds: readonly string[]): Kind => ({
  requests: Array.from({ length: ADDRESSES }, (_, i) => {
    const client = { id: clientIds[i % CLIENTS] ?? '', secret: newValue(PREFIXES.applicationSecret).value };
    const request = formOf('/oauth/token', client, { grant_type: 'client_credentials' });
    return toBuffer({ ...request, from: `10.0.${i >> 8}.${i & 255}` });
  }),
  statusClass: 4,
});

const nobodys = (prefix: string) => Array.from({ length: CREDENTIALS }, () => newValue(prefix).value);

/** Tokens of a machine that may call the asking one too, but minted for another. */
async function mintTokens({ url, admin }: MeasuredServer, askingId: string): Promise<string[]> {
  const sender = await admin.machines.create({ name: 'sender' });
  const other = await admin.machines.create({ name: 'other' });
  for (const toMachineId of [askingId, other.id]) {
    await admin.machineScopes.create({ fromMachineId: sender.id, toMachineId, scopes: ['read'] });
  }
  const machine = createCountersign({
    url,
    machineSecretKey: sender.secret ?? '',
    timeoutMs: SETUP_MS_MAX,
  });
  const minted = Array.from({ length: CREDENTIALS }, () =>
    machine.m2mTokens.create({ audience: [other.id] }),
  );
  return (await Promise.all(minted)).map(({ token = '' }) => token);
}
