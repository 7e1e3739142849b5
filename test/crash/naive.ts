/** How not to do it, as a target of the crash test: commit, then enqueue. It shows that the test can fail. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { launchChild } from '../support/children.ts';
import type { WhenDone } from '../support/deps.ts';
import { ownRedis } from '../support/redis.ts';
import { freePort } from '../support/services.ts';
import { anyOf, type Target } from './crash.ts';

const QUIET_MS = 10_000;

export async function startNaive(folder: string, receiverUrl: string, whenDone: WhenDone): Promise<Target> {
  const redis = await ownRedis(whenDone);
  await redis.start();
  const port = await freePort();
  const file = join(folder, 'naive.db');
  const script = new URL('./naive-process.ts', import.meta.url);
  const begin = async () => {
    const child = launchChild(script, [file, `${port}`, redis.url, receiverUrl], whenDone);
    await child.line((line) => line === 'ready');
    return child;
  };
  let child = await begin();
  const parts = [
    async () => {
      await child.kill();
      child = await begin();
      return 'kill' as const;
    },
    async () => {
      await redis.kill();
      await redis.start();
      return 'kill' as const;
    },
  ];
  return {
    async commit() {
      const id = randomUUID();
      const answer = await fetch(`http://127.0.0.1:${port}/${id}`, {
        method: 'POST',
        signal: AbortSignal.timeout(5_000),
      }).catch(() => null);
      return answer?.ok ? id : null;
    },
    disturb: () => anyOf(parts),
    async committed() {
      const database = new Database(file, { readonly: true });
      const ids = database.prepare('SELECT id FROM committed').pluck().all() as string[];
      database.close();
      return ids;
    },
    async settled(receiver) {
      for (let seen = -1; seen < receiver.received.length; ) {
        seen = receiver.received.length;
        await sleep(QUIET_MS);
      }
    },
  };
}
