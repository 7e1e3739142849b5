import { createHash, createHmac } from 'node:crypto';
import { expect, it } from 'vitest';
import {
  createKeyring,
  type Keys,
  masterKeyCheck,
  newKey,
  unwrapKey,
  wrapKey,
} from '../../../server/crypto/keyring.ts';

const master = Buffer.alloc(32, 1);
const other = Buffer.alloc(32, 2);

const newKeys = (): Keys => ({ pepper: [newKey()], sealing: newKey(), log: newKey(), row_mac: newKey() });

it('unwrapKey() opens a key with the master key, purpose and version it was wrapped with, and with no other', () => {
  const key = newKey();
  const wrapped = wrapKey(master, 'pepper', 1, key);
  expect(unwrapKey(master, 'pepper', 1, wrapped)).toEqual(key);
  expect(() => unwrapKey(other, 'pepper', 1, wrapped)).toThrow();
  expect(() => unwrapKey(master, 'sealing', 1, wrapped)).toThrow();
  expect(() => unwrapKey(master, 'pepper', 2, wrapped)).toThrow();
});

it('newKey() makes 32 bytes, never the same', () => {
  const keys = Array.from({ length: 100 }, newKey);
  expect(new Set(keys.map((key) => key.toString('hex'))).size).toBe(100);
  expect(keys.every((key) => key.length === 32)).toBe(true);
});

it('masterKeyCheck() depends on the master key and the installation, and holds neither', () => {
  const check = masterKeyCheck(master, 'epoch');
  expect(masterKeyCheck(master, 'epoch')).toEqual(check);
  expect(masterKeyCheck(other, 'epoch')).not.toEqual(check);
  expect(masterKeyCheck(master, 'another')).not.toEqual(check);
  expect(check.includes(master)).toBe(false);
});

it('createKeyring() hashes and seals with its own keys: another keyring finds and opens nothing', () => {
  const [mine, theirs] = [createKeyring(newKeys()), createKeyring(newKeys())];
  expect(mine.hash('value')).toEqual(mine.hash('value'));
  expect(mine.hash('value')).not.toEqual(theirs.hash('value'));
  expect(mine.hashOf(createHash('sha256').update('value').digest())).toEqual(mine.hash('value'));
  const sealed = mine.seal('place', 'secret');
  expect(mine.unseal('place', sealed).toString()).toBe('secret');
  expect(() => theirs.unseal('place', sealed)).toThrow();
});

it('createKeyring() hashes by HMAC-SHA-256 under each pepper in turn, over the SHA-256 of the value', () => {
  const keys = { ...newKeys(), pepper: [newKey(), newKey()] };
  const hmac = (key: Buffer | undefined, data: Buffer) =>
    createHmac('sha256', key ?? '')
      .update(data)
      .digest();
  const digest = createHash('sha256').update('value').digest();
  const first = hmac(keys.pepper[0], digest);
  expect(createKeyring({ ...keys, pepper: keys.pepper.slice(0, 1) }).hash('value')).toEqual(first);
  expect(createKeyring(keys).hash('value')).toEqual(hmac(keys.pepper[1], first));
  // By which a value is known of which only the SHA-256 is.
  expect(createKeyring(keys).rehash(digest, 0)).toEqual(createKeyring(keys).hash('value'));
});

it('createKeyring() hashes through every pepper, and takes further what was stored while there were fewer', () => {
  const keys = newKeys();
  const before = createKeyring(keys);
  const after = createKeyring({ ...keys, pepper: [...keys.pepper, newKey(), newKey()] });
  expect([before.pepperVersion, after.pepperVersion]).toEqual([1, 3]);
  const stored = before.hash('value');
  expect(after.hash('value')).not.toEqual(stored);
  expect(after.rehash(stored, 1)).toEqual(after.hash('value'));
  expect(after.rehash(after.hash('value'), 3)).toEqual(after.hash('value'));
  expect(after.rehash(stored, 2)).not.toEqual(after.hash('value'));
});
