/** Status lists as a third party finds them, which has the JWKS and the list, and nothing else of ours. */

import { setTimeout as sleep } from 'node:timers/promises';
import { inflateSync } from 'node:zlib';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { expect, it } from 'vitest';
import { describeOnEachDialect, freshFolder, type WhenDone, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';
import { newSite, startAt } from '../support/site.ts';

/** Nothing shown is older. */
const FRESH_MS = 1_000;

/** What a third party concludes of a token: whether it may be relied upon. `at` is where the issuer is reached. */
async function isRelied(token: string, issuer: string, at = issuer): Promise<boolean> {
  const jwks = createRemoteJWKSet(new URL(`${at}/.well-known/jwks.json`));
  const { payload } = await jwtVerify(token, jwks, { issuer });
  const { idx, uri } = (payload['status'] as { status_list: { idx: number; uri: string } }).status_list;
  const response = await fetch(uri.replace(issuer, at), {
    headers: { accept: 'application/statuslist+jwt' },
  });
  expect(response.headers.get('content-type')).toBe('application/statuslist+jwt');
  const list = await jwtVerify(await response.text(), jwks, {
    typ: 'statuslist+jwt',
    subject: uri,
    requiredClaims: ['iat', 'exp', 'ttl'],
  });
  const { bits, lst } = list.payload['status_list'] as { bits: number; lst: string };
  expect(bits).toBe(1);
  const bytes = inflateSync(Buffer.from(lst, 'base64url'));
  expect(idx).toBeLessThan(bytes.length * 8);
  return (((bytes[idx >> 3] ?? 0) >> (idx & 7)) & 1) === 0;
}

/** What a call answered; throws where it was refused. */
async function done(server: RunningServer, path: string, input: unknown, credential?: string) {
  const { body } = await server.call(path, input, credential);
  if (body.error) throw new Error(`The call was refused: ${body.error.message}`);
  return body.result.data;
}

const mint = async (server: RunningServer, secret: string): Promise<{ id: string; token: string }> =>
  done(server, 'm2mTokens.create', { format: 'jwt' }, secret);

const uriOf = (token: string) =>
  (decodeJwt(token)['status'] as { status_list: { uri: string } }).status_list.uri;

it('a third party honours each way by which a token is refused, a second later', async () => {
  const server = await startServer(freshFolder());
  const machine = (name: string) => done(server, 'machines.create', { name });
  const names = ['revoked', 'disabled', 'all revoked', 'deleted', 'compromised', 'left alone'];
  const machines = await Promise.all(names.map(machine));
  const tokens = await Promise.all(machines.map(({ secret }) => mint(server, secret)));
  const relied = async () => {
    const answers = await Promise.all(tokens.map(({ token }) => isRelied(token, server.url)));
    return names.filter((_, i) => answers[i]);
  };
  expect(await relied()).toEqual(names);

  const ids = machines.map(({ id }) => id);
  await done(server, 'm2mTokens.revoke', { id: tokens[0]?.id });
  await done(server, 'machines.disable', { id: ids[1] });
  await done(server, 'm2mTokens.revokeAll', { machineId: ids[2] });
  await done(server, 'machines.delete', { id: ids[3] });
  await done(server, 'machines.rotateSecret', { id: ids[4], compromised: true });
  await sleep(FRESH_MS);
  expect(await relied()).toEqual(['left alone']);

  await done(server, 'machines.enable', { id: ids[1] });
  await sleep(FRESH_MS);
  expect(await relied()).toEqual(['disabled', 'left alone']);
});

describeOnEachDialect('two servers on one database', (dialect) => {
  const whenDone = whenSuiteDone();

  async function startTwo(to: WhenDone) {
    const site = await newSite(dialect, 2, {}, to);
    const first = await startAt(site, 0, { whenDone: to });
    const second = await startAt(site, 1, { whenDone: to });
    const adminKey = first.adminKey || second.adminKey;
    return { first, second, adminKey, issuer: site.settings[0]?.['COUNTERSIGN_PUBLIC_URL'] ?? '' };
  }

  it('each shows what was revoked at the other, signs it once for all who ask, and no second time unless it changed', async () => {
    const { first, second, adminKey, issuer } = await startTwo(whenDone);
    const { secret } = await done(first, 'machines.create', { name: 'caller' }, adminKey);
    const tokens = [await mint(first, secret), await mint(second, secret)] as const;
    const relied = (server: RunningServer) =>
      Promise.all(tokens.map(({ token }) => isRelied(token, issuer, server.url)));
    for (const server of [first, second]) expect(await relied(server)).toEqual([true, true]);
    await done(second, 'm2mTokens.revoke', { id: tokens[0].id }, adminKey);
    await sleep(FRESH_MS);
    for (const server of [first, second]) expect(await relied(server)).toEqual([false, true]);
    await done(first, 'm2mTokens.revoke', { id: tokens[1].id }, adminKey);
    await sleep(FRESH_MS);
    for (const server of [first, second]) expect(await relied(server)).toEqual([false, false]);

    const list = uriOf(tokens[0].token).replace(issuer, first.url);
    expect(uriOf(tokens[1].token)).toBe(uriOf(tokens[0].token));
    const ask = async () => {
      const answers = await Promise.all(Array.from({ length: 200 }, () => send(list)));
      return new Set(answers.map(({ body }) => String(body)));
    };
    const [before, ...more] = await ask();
    expect(more).toEqual([]);
    await sleep(FRESH_MS);
    expect([...(await ask())]).toEqual([before]);
  });
});
