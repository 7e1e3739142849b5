import { expect, it } from 'vitest';
import { freshFolder } from './deps.ts';
import { startServer } from './server.ts';

it('a server that npm started goes with npm, however that is ended', async () => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const server = await startServer(freshFolder(), {}, { byNpm: 'once built' });
    await server.stop(signal);
    await expect(fetch(server.url)).rejects.toThrow();
  }
});
