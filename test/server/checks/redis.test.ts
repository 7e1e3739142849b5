import { expect, it } from 'vitest';
import { judge } from '../../../server/checks/redis.ts';

const told = (told: Record<string, string>) =>
  judge(new Map(Object.entries({ redis_version: '7.2.4', role: 'master', ...told })));

it.each([
  ['7.2.4', 'ok'],
  ['6.2.0', 'ok'],
  ['6.0.16', 'warning'],
  ['4.0.9', 'problem'],
])('judge() calls version %s a %s', (redis_version, state) => {
  expect(told({ redis_version }).state).toBe(state);
});

it('judge() refuses a replica and one that evicts, and says whether it keeps anything', () => {
  expect(told({ role: 'slave' }).state).toBe('problem');
  expect(told({ maxmemory_policy: 'allkeys-lru' }).state).toBe('problem');
  expect(told({ maxmemory_policy: 'noeviction', aof_enabled: '1' })).toMatchObject({
    state: 'ok',
    found: '7.2.4, master, an append-only file',
  });
  expect(told({ aof_enabled: '0' }).found).toBe('7.2.4, master, no append-only file');
});
