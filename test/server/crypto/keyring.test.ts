import { expect, it } from 'vitest';
import {
  createKeyring,
  KEY_PURPOSES,
  type KeyPurpose,
  masterKeyCheck,
  newKey,
  unwrapKey,
  wrapKey,
} from '../../../server/crypto/keyring.ts';

const master = Buffer.alloc(32, 1);
const other = Buffer.alloc(32, 2);

const newKeys = () =>
  Object.fromEntries(KEY_PURPOSES.map((purpose) => [purpose, newKey()])) as Record<KeyPurpose, Buffer>;

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
  const [mine, theirs] = [createKeyring(newKeys(), 1), createKeyring(newKeys(), 1)];
  expect(mine.hash('value')).toEqual(mine.hash('value'));
  expect(mine.hash('value')).not.toEqual(theirs.hash('value'));
  const sealed = mine.seal('place', 'secret');
  expect(mine.unseal('place', sealed).toString()).toBe('secret');
  expect(() => theirs.unseal('place', sealed)).toThrow();
});
