/** A certificate that vouches for itself (RFC 5280), for servers of tests that are spoken to by https. */
import { generateKeyPairSync, sign } from 'node:crypto';

export interface Certificate {
  /** As PEM: of the server, and of whoever is to trust it. */
  cert: string;
  key: string;
}

/** For some host names, until 2100. */
export function newCertificate(hosts: readonly string[]): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const name = sequence(set(sequence(oid(2, 5, 4, 3), der(0x0c, Buffer.from('Countersign test')))));
  const signedWith = sequence(oid(1, 2, 840, 10045, 4, 3, 2));
  const names = sequence(...hosts.map((host) => der(0x82, Buffer.from(host))));
  const extensions = sequence(
    sequence(oid(2, 5, 29, 17), der(0x04, names)),
    sequence(oid(2, 5, 29, 19), der(0x01, Buffer.of(0xff)), der(0x04, sequence(der(0x01, Buffer.of(0xff))))),
  );
  const content = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, Buffer.of(1)),
    signedWith,
    name,
    sequence(time('20200101000000Z'), time('21000101000000Z')),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, extensions),
  );
  const signature = sign('sha256', content, privateKey);
  const certificate = sequence(content, signedWith, der(0x03, Buffer.of(0), signature));
  return { cert: pemOf(certificate), key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

const sequence = (...parts: Buffer[]) => der(0x30, ...parts);
const set = (...parts: Buffer[]) => der(0x31, ...parts);
const time = (text: string) => der(0x18, Buffer.from(text));

function oid(first: number, second: number, ...rest: number[]): Buffer {
  const arcs = rest.flatMap((arc) => {
    const groups = [arc & 127];
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 127) | 128);
    return groups;
  });
  return der(0x06, Buffer.of(first * 40 + second, ...arcs));
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const header = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.of(tag, ...header), content]);
}

function pemOf(certificate: Buffer): string {
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}
