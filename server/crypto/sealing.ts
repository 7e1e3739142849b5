import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

const VERSION = 1;
const IV_LENGTH = 12;
const TAG_LENGTH = 16;

/**
 * AES-256-GCM over `plaintext`, bound to `place` (table, column and id) as associated data: a sealed value copied to
 * another row does not open. Shape: version byte, 12 bytes of IV, ciphertext, 16 bytes of tag.
 */
export function seal(key: Buffer, place: string, plaintext: Buffer | string): Buffer {
  const iv = randomBytes(IV_LENGTH);
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(place));
  return Buffer.concat([
    Buffer.of(VERSION),
    iv,
    cipher.update(plaintext),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
}

/** Opens what `seal` made; throws when the key or the place is another, or a bit has changed. */
export function unseal(key: Buffer, place: string, sealed: Buffer): Buffer {
  if (sealed[0] !== VERSION || sealed.length < 1 + IV_LENGTH + TAG_LENGTH) {
    throw new Error(`Cannot unseal '${place}': not a sealed value of version ${VERSION}`);
  }
  const iv = sealed.subarray(1, 1 + IV_LENGTH);
  const decipher = createDecipheriv('aes-256-gcm', key, iv)
    .setAAD(Buffer.from(place))
    .setAuthTag(sealed.subarray(-TAG_LENGTH));
  return Buffer.concat([decipher.update(sealed.subarray(1 + IV_LENGTH, -TAG_LENGTH)), decipher.final()]);
}
