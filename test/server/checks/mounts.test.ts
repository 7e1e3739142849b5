import { expect, it } from 'vitest';
import { mountOf } from '../../../server/checks/mounts.ts';

const MOUNTINFO = [
  '27 1 254:0 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a - b',
  '30 27 0:40 / /srv rw - ext4 /dev/vdb rw,nobarrier',
  '31 30 0:41 / /srv/two\\040words rw,noatime master:2 shared:3 - nfs4 host:/share rw,vers=4.2',
  '32 27 0:42 / /data rw - xfs /dev/vdc rw',
  '33 27 0:43 / /data rw - tmpfs tmpfs rw',
  '',
].join('\n');

it('mountOf() answers the innermost mount, and of several in one place the last', () => {
  const typeOf = (path: string) => mountOf(path, MOUNTINFO)?.type;
  expect(['/home', '/srv', '/srv/two words/data', '/srvx', '/data/in'].map(typeOf)).toEqual([
    'overlay',
    'ext4',
    'nfs4',
    'overlay',
    'tmpfs',
  ]);
  expect(mountOf('/home', '')).toBeNull();
});
