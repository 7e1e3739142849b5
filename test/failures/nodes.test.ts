import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import type { EventType } from '../../server/domain/event-types.ts';
import { createRaceClient } from '../race/client.ts';
import { type Fleet, startFleet } from '../race/fleet.ts';
import { race } from '../race/race.ts';
import { emptyDatabase, freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type Following, followFeed } from '../support/feed.ts';
import { startReceiver } from '../support/receiver.ts';
import type { Launched } from '../support/server.ts';
import { describeMode } from '../workers/transports.ts';

const SERVERS = 3;
const WORKERS = 2;
const KEYS = 200;
/** Each is a server and then workers, in turn. */
const KILLS = 3;
/** A claim of workers that were killed before the queue had it is void after a minute. */
const SETTLE_MS_MAX = 90_000;
/** It has nothing to do here, and is due by itself once a day. */
const JOB = 'event-prune';

/** What every consumer of the feed must hear of, and every webhook endpoint. */
const ENDINGS: readonly EventType[] = [
  'api_key.revoked',
  'api_key.disabled',
  'api_key.deleted',
  'subject.api_keys_revoked',
  'subject.disabled',
  'm2m_token.revoked',
  'machine.tokens_revoked',
  'machine.disabled',
  'machine.deleted',
  'machine_scope.deleted',
];

/** Somebody who follows one server and, when that is killed, goes on where it was as soon as it is back. */
function listen(url: string, key: string) {
  const feeds: Following[] = [];
  let isOver = false;
  async function follow() {
    while (!isOver) {
      const lastEventId = feeds.map((feed) => feed.lastId()).findLast((id) => id !== '');
      const feed = await followFeed(url, key, lastEventId === undefined ? {} : { lastEventId }).catch(
        () => null,
      );
      if (feed) feeds.push(feed);
      await feed?.ended;
      await sleep(50);
    }
  }
  const following = follow();
  const told = () => feeds.flatMap((feed) => feed.told);
  return {
    told,
    connections: () => feeds.filter(({ status }) => status === 200).length,
    /** The sequences of what it was told to forget. */
    heard: () => told().flatMap(({ event, data }) => (event === 'invalidate' ? [data.seq as number] : [])),
    async end() {
      isOver = true;
      for (const feed of feeds) feed.close();
      await following;
    },
  };
}

/** Asks for a run of a job, and resolves when it has succeeded. */
async function haveRun(call: (path: string, input: object) => Promise<unknown>, name: string) {
  const succeeded = async () => {
    const jobs = (await call('jobs.list', {})) as { name: string; lastSucceededAt: number | null }[];
    return jobs.find((job) => job.name === name)?.lastSucceededAt ?? 0;
  };
  const before = await succeeded();
  await call('jobs.run', { name });
  await vi.waitFor(async () => expect(await succeeded()).toBeGreaterThan(before), { timeout: 20_000 });
}

const runsOf = (launched: readonly Launched[], name: string) =>
  launched
    .flatMap((each) => each.log())
    .filter(({ msg, job, outcome }) => msg === 'A job was run' && job === name && outcome === 'succeeded')
    .length;

describeMode('three servers and two workers on one PostgreSQL and one Redis', ['postgres', 'redis'], () => {
  const whenDone = whenSuiteDone();

  it('killed one after another under load: what one revokes all refuse at once, all consumers hear of it, each job runs once and each webhook arrives', {
    timeout: 300_000,
  }, async () => {
    const fleet = await startFleet({
      folder: freshFolder(whenDone),
      databaseUrl: await emptyDatabase('postgres', whenDone),
      processes: SERVERS,
      transport: 'bullmq',
      workers: WORKERS,
      whenDone,
    });
    const { call, close } = await createRaceClient(fleet);
    const receiver = await startReceiver(() => 200, whenDone);
    await call('webhookEndpoints.create', { url: receiver.url, eventTypes: ENDINGS });
    const listeners = fleet.urls.map((url) => listen(url, fleet.adminKey));
    await vi.waitFor(() => expect(listeners.map((each) => each.connections())).toEqual([1, 1, 1]));

    const dead: Launched[] = [];
    await haveRun(call, JOB);
    const runsBefore = runsOf(fleet.workers(), JOB);
    let killed = 0;
    const disturbed: Fleet = {
      ...fleet,
      async killServer() {
        const turn = killed++;
        await fleet.killServer(turn % SERVERS);
        await haveRun(call, JOB);
        dead.push(await fleet.killWorkers(turn % WORKERS));
        await haveRun(call, JOB);
      },
    };
    const result = await race(disturbed, { keys: KEYS, serverKills: KILLS, redisKills: 0 });
    expect({ zombies: result.zombies, lost: result.lost }).toEqual({ zombies: [], lost: [] });
    expect(killed).toBe(KILLS);
    expect(runsOf([...dead, ...fleet.workers()], JOB) - runsBefore).toBe(2 * KILLS);

    const endings = (await allEvents(call)).filter(({ type }) => ENDINGS.includes(type));
    expect(endings.length).toBeGreaterThan(KEYS / 4);
    for (const listener of listeners) {
      await vi.waitFor(() =>
        expect(listener.heard()).toEqual(expect.arrayContaining(endings.map(({ seq }) => seq))),
      );
      expect(listener.connections()).toBeGreaterThan(1);
      expect(listener.told().filter(({ event }) => event === 'reset')).toEqual([]);
    }
    const ids = () => new Set(receiver.received.map(({ headers }) => headers['webhook-id']));
    const missing = () => endings.filter(({ id }) => !ids().has(id));
    await vi.waitFor(() => expect(missing()).toEqual([]), { timeout: SETTLE_MS_MAX, interval: 500 });
    await Promise.all(listeners.map((listener) => listener.end()));
    await close();
  });
});

async function allEvents(call: (path: string, input: object) => Promise<unknown>) {
  const events: { seq: number; id: string; type: EventType }[] = [];
  for (let after = 0; ; ) {
    const page = (await call('events.list', { after, limit: 500 })) as {
      data: typeof events;
      nextAfter: number;
    };
    if (page.data.length === 0) return events;
    events.push(...page.data);
    after = page.nextAfter;
  }
}
