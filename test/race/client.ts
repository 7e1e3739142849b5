/** What the race speaks to its servers with: calls that somebody answers in the end, and verifications that may go unanswered. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool } from 'undici';
import { createVerifier } from '../../client/verifier.ts';
import type { Fleet } from './fleet.ts';
import type { Call, Credential } from './targets.ts';

export interface RaceClient {
  /** The secret key that it verifies with. */
  verifierKey: string;
  /** Calls a procedure at any server, and at another where that does not answer. Throws what is refused. */
  call: Call;
  /** Whether a credential is valid; null where the server does not answer. */
  verify(server: number, credential: Credential): Promise<boolean | null>;
  /** The same of up to 100 that were asked about at once; waits until the server answers. */
  verifyBatch(server: number, credentials: readonly Credential[]): Promise<boolean[]>;
  close(): Promise<void>;
}

const REQUEST_MS_MAX = 10_000;
const RETRY_MS = 20;
const ATTEMPTS_MAX = 500;

/** 408 Request Timeout, and 5xx (RFC 9110, section 15): nothing was decided. */
const isBusy = (status: number) => status === 408 || status >= 500;

export async function createRaceClient({ urls, adminKey }: Fleet): Promise<RaceClient> {
  const pools = urls.map(
    (url) => new Pool(url, { headersTimeout: REQUEST_MS_MAX, bodyTimeout: REQUEST_MS_MAX }),
  );
  const post = async (server: number, path: string, credential: string, body: string) => {
    const headers = { authorization: `Bearer ${credential}`, 'content-type': 'application/json' };
    try {
      const answer = await pools[server]?.request({ path, method: 'POST', headers, body });
      const text = await answer?.body.text();
      return answer && text && !isBusy(answer.statusCode) ? JSON.parse(text) : null;
    } catch {
      return null;
    }
  };
  const verifyAt = async (server: number, path: string, body: string) => {
    const answer = await post(server, path, verifier, body);
    if (answer?.errors) throw new Error(`${path} was refused: ${answer.errors[0]?.message}`);
    return answer;
  };

  const call: Call = async (path, input, credential = adminKey) => {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const server = Math.floor(Math.random() * urls.length);
      const answer = await post(server, `/trpc/${path}`, credential, JSON.stringify(input));
      if (answer?.result) return answer.result.data;
      if (answer?.error) {
        // It was done, and whoever did it did not live to say so.
        if (attempt > 1 && answer.error.data.code === 'not_found') return null;
        throw new Error(`${path} was refused: ${answer.error.message}`);
      }
      await sleep(RETRY_MS);
    }
    throw new Error(`${path} was answered by nobody`);
  };

  const { secret: verifier } = await call('secretKeys.create', { name: 'verifier', role: 'verify' });
  return {
    verifierKey: verifier,
    call,
    async verify(server, { verifyBody }) {
      const answer = await verifyAt(server, '/v1/verify', verifyBody);
      return answer && answer.valid === true;
    },
    async verifyBatch(server, credentials) {
      const body = `{"items":[${credentials.map(({ verifyBody }) => verifyBody)}]}`;
      for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
        const answers = await verifyAt(server, '/v1/verify/batch', body);
        if (answers) return answers.map(({ valid }: { valid: boolean }) => valid);
        await sleep(RETRY_MS);
      }
      throw new Error(`${urls[server]} answers no more`);
    },
    close: async () => void (await Promise.all(pools.map((pool) => pool.destroy()))),
  };
}

/** How not to do it: remembers for a while what was valid, and then does not ask. */
export function remembering(client: RaceClient, rememberMs: number): RaceClient {
  const validUntil = new Map<string, number>();
  return {
    ...client,
    async verify(server, credential) {
      const key = `${server} ${credential.verifyBody}`;
      if ((validUntil.get(key) ?? 0) > performance.now()) {
        // As long as a server close by would take.
        await sleep(1);
        return true;
      }
      const valid = await client.verify(server, credential);
      if (valid) validUntil.set(key, performance.now() + rememberMs);
      return valid;
    },
  };
}

/** The same through a verifier for each server, which follows that server and answers from memory. */
export function throughVerifiers(client: RaceClient, { urls }: Fleet): RaceClient {
  const verifiers = urls.map((url) =>
    createVerifier({ url, secretKey: client.verifierKey, timeoutMs: REQUEST_MS_MAX }),
  );

  async function verify(server: number, { verifyBody }: Credential): Promise<boolean | null> {
    const { credential, ...question } = JSON.parse(verifyBody);
    const answer = await verifiers[server]?.verify(credential, question).catch(() => null);
    return answer ? answer.valid : null;
  }

  async function persist(server: number, credential: Credential): Promise<boolean> {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      const valid = await verify(server, credential);
      if (valid !== null) return valid;
      await sleep(RETRY_MS);
    }
    throw new Error(`${urls[server]} answers no more`);
  }

  return {
    ...client,
    verify,
    verifyBatch: (server, credentials) => Promise.all(credentials.map((each) => persist(server, each))),
    async close() {
      await Promise.all(verifiers.map((verifier) => verifier.close()));
      await client.close();
    },
  };
}
