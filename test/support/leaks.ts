/** Runs around every test file: whoever leaves a socket, a server or a child process behind fails, and is told what. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll } from 'vitest';

const HELD = ['TCPSocketWrap', 'TCPServerWrap', 'ProcessWrap'];
/** What was closed may take this long to be gone. */
const PATIENCE_MS = 2_000;

const held = () => process.getActiveResourcesInfo().filter((resource) => HELD.includes(resource));

afterAll(async () => {
  const deadline = performance.now() + PATIENCE_MS;
  while (held().length > 0) {
    if (performance.now() > deadline)
      throw new Error(`The tests of this file left open: ${held().join(', ')}`);
    await sleep(10);
  }
});
