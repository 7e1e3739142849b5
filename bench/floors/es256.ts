/** The floor of signed tokens: `node:http` that signs a payload like ours with node:crypto, and writes no row. */
import { generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:http';
import { announce } from './floor.ts';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const header = encode({ alg: 'ES256', kid: 'key_000000000000000000000000000', typ: 'JWT' });

const server = createServer((request, response) => {
  request.resume().on('end', () => {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: 'http://127.0.0.1:4400',
      sub: 'mch_0',
      jti: `mt_${now}`,
      iat: now,
      nbf: now,
      exp: now + 3600,
    };
    const signed = `${header}.${encode(claims)}`;
    const signature = sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
    const text = JSON.stringify({ token: `${signed}.${signature.toString('base64url')}` });
    response.writeHead(201, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(text),
    });
    response.end(text);
  });
});
announce(server);
