import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FILE_CHECKS, HOST_MARK, judgeMount } from '../../../server/checks/files.ts';
import { lookAt } from '../../../server/checks/finding.ts';
import { loadConfig } from '../../../server/config.ts';
import { freshFolder } from '../../support/deps.ts';

it('warns of a SQLite file that another host was the last to use, and does not use any more', async () => {
  const dataDir = freshFolder();
  writeFileSync(join(dataDir, 'countersign.db.host'), 'other elsewhere 0'.padEnd(512));
  const config = loadConfig({ COUNTERSIGN_DATA_DIR: dataDir });
  const hostCheck = FILE_CHECKS.filter(({ name }) => name === HOST_MARK);
  expect(await lookAt(hostCheck, config)).toMatchObject([
    { state: 'warning', found: "The SQLite file was last used by the host 'elsewhere'" },
  ]);
});

it('judgeMount() warns of what loses rows, or shares them over a network', () => {
  const judged = (type: string, options = 'rw,relatime') => judgeMount({ type, options }).state;
  expect(judged('ext4')).toBe('ok');
  expect(judged('xfs', 'rw,nobarriers')).toBe('ok');
  for (const type of ['nfs4', 'cifs', 'fuse.sshfs', 'tmpfs', 'overlay']) expect(judged(type)).toBe('warning');
  for (const options of ['rw,nobarrier', 'barrier=0,rw']) expect(judged('ext4', options)).toBe('warning');
});
