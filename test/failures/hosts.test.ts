import { expect, it } from 'vitest';
import { freshFolder } from '../support/deps.ts';
import { launchServer, send, startServer } from '../support/server.ts';

it('a server of another host is refused a SQLite file in use, one of the same host is not, and nothing is changed', async () => {
  const dataDir = freshFolder();
  const server = await startServer(dataDir, { COUNTERSIGN_HOST_ID: 'host-a' });
  const other = await launchServer({ COUNTERSIGN_DATA_DIR: dataDir, COUNTERSIGN_HOST_ID: 'host-b' });
  expect(await other.exit).toBe(1);
  expect(other.stderr()).toMatch(
    /^Cannot start: the database cannot be opened: Another host, '\S+', is using this SQLite file, and only one may\. Stop it there, or use PostgreSQL\n$/,
  );
  await startServer(dataDir, { COUNTERSIGN_HOST_ID: 'host-a' });
  expect((await send(`${server.url}/readyz`)).status).toBe(200);
  expect((await server.call('events.list', {})).body.result.data.data).toHaveLength(1);
});
