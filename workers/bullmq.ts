/**
 * The transport over BullMQ, for those who have Redis: what is due is claimed and handed to whichever process has room.
 * Jobs are ids and attempts, and are forgotten when done. Where Redis is away or refuses, the process that
 * claimed does the work itself. The only importer of bullmq.
 */
import { type Job as BullJob, Queue, Worker } from 'bullmq';
import type { RedisServers } from '../server/config.ts';
import { CountersignError } from '../server/errors.ts';
import type { Logger } from '../server/logger.ts';
import { connectRedis, type RedisConnection } from '../server/redis.ts';
import {
  type Claimed,
  createPump,
  createRuns,
  type Job,
  type JobName,
  type JobRef,
  type Pump,
  Refill,
  RUNS_MAX,
  type Transport,
} from './transport.ts';

export interface BullmqOptions {
  redis: RedisServers;
  /** Tells installations that share one Redis apart. */
  epoch: string;
  logger: Logger;
}

/** In braces, so that a Redis Cluster keeps all keys in one slot, as BullMQ's scripts need it. */
const PREFIX = '{countersign}';
/** Not `work-…`, which a version before still serves: it would drop what is bundled. */
const queueName = (epoch: string) => `bundles-${epoch}`;
const wakeChannel = (epoch: string) => `${PREFIX}:wake:${epoch}`;

/**
 * Jobs that may wait or run at the same time. More would grow old in the queue: a claim is void after a minute, and
 * with one process left and every receiver slow, this many are done in half of that. What is in one runs at once.
 */
const QUEUED_MAX = 2 * RUNS_MAX;

const REDIS_MS_MAX = 2_000;
const FIRST_CONTACT_MS_MAX = 1_000;
const CLOSE_MS_MAX = 3_000;
const RESTART_MS = 1_000;

/** Fails at once while Redis is away: nobody waits for it. */
const IMPATIENT = {
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  commandTimeout: REDIS_MS_MAX,
};
/** Waits for Redis to come back, as BullMQ wants it of connections that block. */
const PATIENT = { maxRetriesPerRequest: null };

/** Says when Redis comes and goes, but not how often it was tried. */
function reportConnection(redis: RedisConnection, logger: Logger) {
  let isReady = false;
  redis.on('ready', () => {
    isReady = true;
    logger.info('Redis is connected');
  });
  redis.on('close', () => {
    if (isReady) logger.warn('The connection to Redis was lost');
    isReady = false;
  });
}

/** Resolves once it is clear whether Redis can be reached, or after a second. */
async function firstContact(redis: RedisConnection): Promise<void> {
  await within(
    FIRST_CONTACT_MS_MAX,
    new Promise<void>((resolve) => {
      redis.once('ready', () => resolve());
      redis.once('error', () => resolve());
    }),
  ).catch(() => {});
}

/** For a process that has no jobs itself: tells those that have that something is due. */
export async function createBullmqProducer({
  redis: servers,
  epoch,
  logger,
}: BullmqOptions): Promise<Transport> {
  const redis = connectRedis(servers, IMPATIENT);
  reportConnection(redis, logger);
  const sending = new Map<JobName, { again: boolean }>();
  let unheard = 0;

  async function send(name: JobName) {
    for (const state = { again: true }; state.again; ) {
      state.again = false;
      sending.set(name, state);
      await redis.publish(wakeChannel(epoch), name).catch(() => {
        unheard++;
      });
    }
    sending.delete(name);
  }

  redis.on('ready', () => {
    if (unheard > 0)
      logger.info({ unheard }, 'While Redis was away workers were not woken; they asked the rows');
    unheard = 0;
  });
  await firstContact(redis);
  return {
    wake(name) {
      // One message is under way at most: whoever hears it asks the rows, and finds all that is due by then.
      const state = sending.get(name);
      if (state) state.again = true;
      else void send(name);
    },
    status: () => ({
      transport: 'bullmq',
      degraded:
        redis.status === 'ready' ? null : 'Redis cannot be reached: workers notice work up to 500 ms late',
    }),
    async close() {
      redis.disconnect();
    },
  };
}

/** For a process that works: relays what is due to the queue, and does what the queue gives it. */
export async function createBullmqConsumer(options: BullmqOptions, jobs: readonly Job[]): Promise<Transport> {
  const { redis: servers, epoch, logger } = options;
  const byName = new Map<string, Job>(jobs.map((job) => [job.name, job]));
  const pumps = new Map<string, Pump>();
  const wake = (name: JobName) => pumps.get(name)?.wake();
  const refill = new Refill(wake);
  const runs = createRuns(logger);

  const relay = createRelay(options);
  const ear = connectRedis(servers, PATIENT);
  ear.on('message', (_channel, name) => wake(name as JobName));
  // At each connection anew: a first one that broke in between would leave us deaf.
  ear.on('ready', () => void ear.subscribe(wakeChannel(epoch)).catch(() => {}));

  const worker = createSupervisedWorker(
    options,
    async (bullJob) => {
      const job = byName.get(bullJob.name);
      const refs = parseJobId(bullJob.id);
      if (job && refs) await Promise.all(refs.map((ref) => runs.start(job, ref)));
      else
        logger.warn({ name: cut(bullJob.name), id: cut(bullJob.id) }, 'Dropped a job that is none of ours');
    },
    (name) => refill.ended(name),
  );

  const isConnected = () => relay.isConnected() && worker.isConnected();

  async function fill(job: Job) {
    for (;;) {
      const queueRoom = isConnected() ? await relay.room() : undefined;
      const room = queueRoom ?? RUNS_MAX - runs.size;
      refill.isAwaited = room <= 0;
      if (room <= 0) return;
      const claimed = await job.claim(room);
      const isQueued = queueRoom !== undefined && (await relay.add(job, claimed));
      if (!isQueued) for (const ref of claimed) void runs.start(job, ref).then(() => refill.ended(job.name));
      if (claimed.length < room) return;
    }
  }

  let closed: Promise<void> | undefined;
  async function close() {
    await Promise.all([...pumps.values()].map((pump) => pump.close()));
    await worker.close(() => runs.settle());
    refill.close();
    ear.disconnect();
    relay.close();
  }

  await Promise.all([firstContact(relay.redis), firstContact(worker.redis)]);
  for (const job of jobs)
    pumps.set(
      job.name,
      createPump(job.name, logger, () => fill(job)),
    );
  return {
    wake,
    status: () => ({ transport: 'bullmq', degraded: isConnected() ? relay.complaint() : UNREACHABLE }),
    close() {
      closed ??= close();
      return closed;
    },
  };
}

const UNREACHABLE = 'Redis cannot be reached: what is due is done by the process that finds it';
const REFUSING = 'Redis takes no jobs: what is due is done by the process that finds it';

/** The queue as somebody sees it who only looks. Its connection goes with `close`. Throws `unavailable` without Redis. */
export async function openQueueToLookAt({ redis: servers, epoch }: BullmqOptions) {
  const redis = connectRedis(servers, IMPATIENT);
  await firstContact(redis);
  if (redis.status !== 'ready') {
    redis.disconnect();
    // A queue that met a broken connection while it began never works again.
    throw new CountersignError('unavailable', 'Cannot show the queue: Redis cannot be reached');
  }
  const queue = new Queue(queueName(epoch), { connection: redis, prefix: PREFIX });
  queue.on('error', () => {});
  return {
    queue,
    async close() {
      await within(CLOSE_MS_MAX, queue.close()).catch(() => {});
      redis.disconnect();
    },
  };
}

/** Puts claimed work into the queue. */
function createRelay({ redis: servers, epoch, logger }: BullmqOptions) {
  const redis = connectRedis(servers, IMPATIENT);
  reportConnection(redis, logger);
  let queue: Queue | undefined;
  /** Which commands failed when they were last tried. */
  const refused = new Set<'count' | 'add'>();

  /** Made late and, after a failure, anew: one that met a broken connection while it began never works again. */
  function openQueue(): Queue {
    if (!queue) {
      queue = new Queue(queueName(epoch), {
        connection: redis,
        prefix: PREFIX,
        streams: { events: { maxLen: 100 } },
      });
      queue.on('error', () => {});
    }
    return queue;
  }

  /** What `work` answers, or undefined when Redis did not do it in time. */
  async function attempt<T>(
    command: 'count' | 'add',
    work: (queue: Queue) => Promise<T>,
  ): Promise<T | undefined> {
    try {
      const done = await within(REDIS_MS_MAX, work(openQueue()));
      refused.delete(command);
      return done;
    } catch (err) {
      if (refused.size === 0) logger.warn({ err }, REFUSING);
      refused.add(command);
      void queue?.close().catch(() => {});
      queue = undefined;
      return undefined;
    }
  }

  return {
    redis,
    isConnected: () => redis.status === 'ready',
    complaint: () => (refused.size > 0 ? REFUSING : null),
    /** How many more jobs the queue should take; undefined when it cannot say. */
    async room(): Promise<number | undefined> {
      const counts = await attempt('count', (open) => open.getJobCounts('wait', 'active'));
      return counts && QUEUED_MAX - (counts['wait'] ?? 0) - (counts['active'] ?? 0);
    },
    /** Whether the queue took them all. One that it took nevertheless is found done, or done twice. */
    async add(job: Job, claimed: readonly Claimed[]): Promise<boolean> {
      if (claimed.length === 0) return true;
      const jobs = bundlesOf(claimed).map((bundle) => toBullJob(job, bundle));
      return (await attempt('add', (open) => open.addBulk(jobs))) !== undefined;
    },
    close() {
      void queue?.close().catch(() => {});
      redis.disconnect();
    },
  };
}

/** A job costs several commands of Redis, so that up to so many pieces of work of one group travel as one. */
const BUNDLE_MAX = 4;

function bundlesOf(claimed: readonly Claimed[]): Claimed[][] {
  const bundles: Claimed[][] = [];
  const open = new Map<string, Claimed[]>();
  for (const one of claimed) {
    const key = `${one.urgent} ${one.group}`;
    const bundle = open.get(key);
    if (bundle && bundle.length < BUNDLE_MAX) bundle.push(one);
    else {
      const begun = [one];
      bundles.push(begun);
      open.set(key, begun);
    }
  }
  return bundles;
}

/** A job that is kept when done would swallow a later one of the same id, so none is kept. */
const toBullJob = ({ name }: Job, bundle: readonly Claimed[]) => ({
  name,
  data: {},
  opts: {
    jobId: bundle.map(({ id, attempt }) => `${id}-${attempt}`).join('+'),
    lifo: bundle.some(({ urgent }) => urgent),
    attempts: 1,
    removeOnComplete: true,
    removeOnFail: true,
  },
});

const JOB_ID_LENGTH_MAX = 256;

/** Whoever controls Redis writes job ids, so they are parsed; what one names is judged by its row. */
export function parseJobId(jobId = ''): JobRef[] | null {
  if (jobId.length > JOB_ID_LENGTH_MAX) return null;
  const refs = jobId.split('+').map(parseRef);
  return refs.length <= BUNDLE_MAX && refs.every((ref) => ref !== null) ? refs : null;
}

function parseRef(text: string): JobRef | null {
  const [, id, attempt] = /^([a-z]{2,8}_[0-9A-Za-z]{27})-([1-9][0-9]{0,5})$/.exec(text) ?? [];
  return id !== undefined && attempt !== undefined ? { id, attempt: Number(attempt) } : null;
}

const cut = (text: string | undefined) => text?.slice(0, 64);

/** A worker of BullMQ that is begun anew when it could not begin: a connection that broke at that moment is final to it. */
function createSupervisedWorker(
  { redis: servers, epoch, logger }: BullmqOptions,
  work: (job: BullJob) => Promise<void>,
  /** Told of each job that the queue no longer counts. */
  onEnd: (name: JobName) => void,
) {
  let isClosing = false;
  // Also BullMQ's own copy of it gives up then: nothing else ends one that is reconnecting.
  const redis = connectRedis(servers, { ...PATIENT, isWanted: () => !isClosing });
  let restart: NodeJS.Timeout | undefined;
  let worker = begin();

  function begin(): Worker {
    const begun = new Worker(queueName(epoch), work, {
      connection: redis,
      prefix: PREFIX,
      concurrency: RUNS_MAX,
      // The same for every worker of a queue: a job of a worker that died is given to another within 15 s.
      lockDuration: 10_000,
      stalledInterval: 5_000,
      maxStalledCount: 5,
      runRetryDelay: RESTART_MS,
      removeOnComplete: { count: 0 },
      removeOnFail: { count: 0 },
    });
    begun.on('completed', ({ name }) => onEnd(name as JobName));
    begun.on('error', (err) => logger.debug({ err }, 'BullMQ reports an error'));
    begun.waitUntilReady().catch(() => {
      if (isClosing) return;
      void begun.close(true).catch(() => {});
      restart = setTimeout(() => {
        worker = begin();
      }, RESTART_MS);
    });
    return begun;
  }

  return {
    redis,
    isConnected: () => redis.status === 'ready',
    /** Takes no more jobs; `settle` waits for those under way, also where Redis can no longer be told of them. */
    async close(settle: () => Promise<void>) {
      isClosing = true;
      clearTimeout(restart);
      const closed = worker.close();
      await settle();
      await within(CLOSE_MS_MAX, closed).catch(() => {
        // A Redis that hangs: BullMQ would wait for it forever.
        void worker.disconnect().catch(() => {});
      });
      await settle();
      redis.disconnect();
    },
  };
}

/** Throws when `work` takes longer; then what becomes of it no longer matters. */
async function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
