/**
 * The race between verifying and revoking: every credential is verified at every server again and again while one call,
 * at any of them, ends it. A zombie is valid in the answer to a request that was sent after that call had returned.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createRaceClient, type RaceClient, remembering, throughVerifiers } from './client.ts';
import type { Fleet } from './fleet.ts';
import { type Credential, type Plan, planTargets, type Target } from './targets.ts';

export interface RaceOptions {
  /** API keys; half as many M2M tokens come with them. */
  keys: number;
  /** How often a server is killed, and how often Redis, spread over the race. */
  serverKills: number;
  redisKills: number;
  /** How not to do it: for that long what was valid is not asked about again. */
  rememberMs?: number;
  /** Verifies through `countersign/verifier`, which has `HEARD_MS_MAX` to hear of an end. */
  throughVerifiers?: boolean;
  say?: (line: string) => void;
}

export interface RaceResult {
  keys: number;
  tokens: number;
  verifications: number;
  /** Events that workers delivered meanwhile. */
  webhooks: number;
  /** By the procedure that did it: how many credentials were ended. */
  ended: Record<string, number>;
  /** One line for each credential that was valid after its end: which, how it was ended, where. */
  zombies: string[];
  /** One line for each that was refused before anybody ended it, or never valid at all. */
  lost: string[];
}

/** Targets in the race at the same time. */
const AT_ONCE = 12;
/** Some of the events there will be, for workers to deliver. */
const WEBHOOKS = ['api_key.revoked', 'api_key.disabled', 'subject.api_keys_revoked', 'm2m_token.revoked'];
/** How long after an end a verifier may answer from memory: what design.md promises of one that lost its feed. */
const HEARD_MS_MAX = 2_000;
/** Refusals that each loop waits for after the end. */
const ANSWERS_AFTER = 2;
const MAKE_ATTEMPTS_MAX = 5;
const BATCH = 100;
const RETRY_MS = 20;
const SAY_EVERY = 1_000;

export async function race(fleet: Fleet, options: RaceOptions): Promise<RaceResult> {
  const client = await createRaceClient(fleet);
  const raced = clientOf(client, fleet, options);
  try {
    return await new Race(fleet, raced, options).run();
  } finally {
    await raced.close();
  }
}

function clientOf(client: RaceClient, fleet: Fleet, options: RaceOptions): RaceClient {
  if (options.rememberMs) return remembering(client, options.rememberMs);
  return options.throughVerifiers ? throughVerifiers(client, fleet) : client;
}

/** What the loops of one target go by. */
interface Progress {
  /** The call that ends it has been sent. */
  isEnding: boolean;
  /** When it had returned, on the monotonic clock. */
  endedAt: number | null;
}

const msSince = (endedAt: number | null) => (endedAt === null ? null : performance.now() - endedAt);

class Race {
  readonly #fleet: Fleet;
  readonly #client: RaceClient;
  readonly #options: RaceOptions;
  readonly #raced: Credential[] = [];
  readonly #zombies = new Map<string, string>();
  readonly #lost = new Map<string, string>();
  readonly #seen = new Set<string>();
  readonly #ended: Record<string, number> = {};
  #tokens = 0;
  #verifications = 0;
  readonly #graceMs: number;

  constructor(fleet: Fleet, client: RaceClient, options: RaceOptions) {
    this.#fleet = fleet;
    this.#client = client;
    this.#options = options;
    this.#graceMs = options.throughVerifiers ? HEARD_MS_MAX : 0;
  }

  async run(): Promise<RaceResult> {
    const plans = planTargets(this.#options.keys);
    const last = plans.pop() as Plan;
    const { receiver } = this.#fleet;
    const before = receiver.received.length;
    const { call } = this.#client;
    const { id } = await call('webhookEndpoints.create', { url: receiver.url, eventTypes: WEBHOOKS });
    await this.#runAll(plans);
    await this.#runOne(last);
    await this.#verifyAllOnceMore('when the race was over');
    await this.#fleet.killAll();
    await this.#verifyAllOnceMore('when all servers had been killed and started again');
    await call('webhookEndpoints.delete', { id });
    return {
      keys: this.#raced.length - this.#tokens,
      tokens: this.#tokens,
      verifications: this.#verifications,
      webhooks: receiver.received.length - before,
      ended: this.#ended,
      zombies: [...this.#zombies.values()],
      lost: [...this.#lost.values()],
    };
  }

  async #runAll(plans: readonly Plan[]) {
    const { say = () => {} } = this.#options;
    const disturbances = this.#disturbances();
    let disturbed: Promise<void> = Promise.resolve();
    let next = 0;
    const work = async () => {
      for (let plan = plans[next++]; plan; plan = plans[next++]) {
        const begun = next / plans.length;
        const due = disturbances.findIndex(({ at }) => at > begun);
        for (const { disturb } of disturbances.splice(0, due === -1 ? disturbances.length : due))
          disturbed = disturbed.then(disturb);
        // Told of when all else has ended, and then to whoever awaits it.
        disturbed.catch(() => {});
        await this.#runOne(plan);
        if (next % SAY_EVERY === 0)
          say(`${next} of ${plans.length} ended, ${this.#verifications} verifications`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    await disturbed;
  }

  /** At which part of the race, of 1, what is killed; in order. */
  #disturbances(): { at: number; disturb: () => Promise<void> }[] {
    const { serverKills, redisKills } = this.#options;
    const spread = (times: number, disturb: () => Promise<void>) =>
      Array.from({ length: times }, (_, i) => ({ at: (i + 0.5) / times, disturb }));
    return [
      ...spread(serverKills, () =>
        this.#fleet.killServer(Math.floor(Math.random() * this.#fleet.urls.length)),
      ),
      ...spread(redisKills, () => this.#fleet.killRedis()),
    ].sort((a, b) => a.at - b.at);
  }

  async #runOne(plan: Plan) {
    const target = await this.#make(plan);
    await this.#race(target);
    const { way, credentials } = target;
    this.#raced.push(...credentials);
    this.#tokens += credentials.filter(({ kind }) => kind !== 'API key').length;
    this.#ended[way] = (this.#ended[way] ?? 0) + credentials.length;
  }

  /** Made anew where a server was killed after it had made a part of it, and before it said so. */
  async #make(plan: Plan, attempt = 1): Promise<Target> {
    try {
      return await plan(this.#client.call);
    } catch (error) {
      if (attempt === MAKE_ATTEMPTS_MAX) throw error;
      return this.#make(plan, attempt + 1);
    }
  }

  async #race({ way, credentials, end }: Target) {
    const progress: Progress = { isEnding: false, endedAt: null };
    const everywhere = <T>(verify: (server: number, credential: Credential) => T): T[] =>
      this.#fleet.urls.flatMap((_, server) => credentials.map((credential) => verify(server, credential)));

    const loops = everywhere((server, credential) =>
      this.#verifyUntilEnded(server, credential, way, progress),
    );
    await Promise.all(loops.map(({ begun }) => begun));
    await sleep(Math.random() * 5);
    progress.isEnding = true;
    await end(this.#client.call);
    progress.endedAt = performance.now();
    await Promise.all(loops.map(({ over }) => over));
    const onceMore = everywhere(async (server, credential) => {
      const elapsedMs = msSince(progress.endedAt) ?? 0;
      const valid = await this.#verify(server, credential);
      if (valid && elapsedMs >= this.#graceMs) this.#note(this.#zombies, server, credential, way);
    });
    await Promise.all(onceMore);
    for (const credential of credentials)
      if (!this.#seen.has(credential.id)) this.#note(this.#lost, -1, credential, 'never valid');
  }

  /** `begun` resolves with the first answer, or when the server answers nobody. */
  #verifyUntilEnded(server: number, credential: Credential, way: string, progress: Progress) {
    let begin = () => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const loop = async () => {
      for (let after = 0; after < ANSWERS_AFTER; ) {
        const elapsedMs = msSince(progress.endedAt);
        const valid = await this.#verify(server, credential);
        begin();
        if (valid === null) {
          // It is down: what it says when it is up again is asked in the end.
          if (elapsedMs !== null) return;
          await sleep(RETRY_MS);
        } else if (elapsedMs !== null) {
          const isHeard = elapsedMs >= this.#graceMs;
          if (isHeard || !valid) after++;
          if (valid && isHeard) this.#note(this.#zombies, server, credential, way);
          // Memory answers within the turn of the event loop.
          if (this.#graceMs > 0) await sleep(1);
        } else if (!valid && !progress.isEnding) {
          this.#note(this.#lost, server, credential, 'before its end');
        } else if (this.#graceMs > 0) await sleep(1);
      }
    };
    return { begun, over: loop() };
  }

  async #verify(server: number, credential: Credential): Promise<boolean | null> {
    const valid = await this.#client.verify(server, credential);
    if (valid !== null) this.#verifications++;
    if (valid) this.#seen.add(credential.id);
    return valid;
  }

  async #verifyAllOnceMore(when: string) {
    for (const server of this.#fleet.urls.keys()) {
      for (let i = 0; i < this.#raced.length; i += BATCH) {
        const credentials = this.#raced.slice(i, i + BATCH);
        const answers = await this.#client.verifyBatch(server, credentials);
        this.#verifications += answers.length;
        for (const [j, credential] of credentials.entries())
          if (answers[j] !== false) this.#note(this.#zombies, server, credential, when);
      }
    }
  }

  #note(book: Map<string, string>, server: number, { id, kind }: Credential, how: string) {
    if (!book.has(id)) book.set(id, `${kind} ${id} at server ${server}, ${how}`);
  }
}
