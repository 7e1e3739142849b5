import { expect, it } from 'vitest';
import { lookAtNode } from '../../../server/checks/host.ts';

it.each([
  ['18.20.0', 'problem'],
  ['20.18.3', 'problem'],
  ['20.19.0', 'warning'],
  ['22.0.0', 'ok'],
  ['24.1.0', 'ok'],
])('lookAtNode() calls %s a %s', (version, state) => {
  expect(lookAtNode(version).state).toBe(state);
});
