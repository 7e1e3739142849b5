import { expect, it } from 'vitest';
import { lookAt } from '../../../server/checks/finding.ts';
import { judgeSilences, SERVER_CHECKS } from '../../../server/checks/server.ts';

it.each([
  ['as they are sent', [498, 502, 500], 'ok'],
  ['two together once', [1_000, 3, 500], 'ok'],
  ['in bursts', [2, 1_000, 3], 'warning'],
  ['too late for memory to be used', [500, 1_900, 500], 'problem'],
  ['too seldom', null, 'problem'],
] as const)('judgeSilences() of heartbeats that come %s', (_, silencesMs, state) => {
  expect(judgeSilences(silencesMs).state).toBe(state);
});

it('sends no key in the clear', async () => {
  const feed = SERVER_CHECKS.filter(({ name }) => name === 'feed');
  const about = { url: 'http://auth.example.com', secretKey: 'sk_1', now: Date.now };
  expect(await lookAt(feed, about)).toMatchObject([
    { state: 'skipped', found: 'The key would travel in the clear: name the https URL' },
  ]);
});
