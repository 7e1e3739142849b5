/** The authorization server, beside two others, all on SQLite with each commit flushed to the disk. */
import { byCodeFlows } from '../code-flows.ts';
import { OAUTH_ENV, type OauthRequests, prepareOauth } from '../oauth.ts';
import { PEERS, startPeer } from '../peers.ts';
import { type Measured, startCountersign } from '../processes.ts';
import { toBuffer } from '../requests.ts';
import { missingResult, type Rated, type Result, rateResult } from '../results.ts';
import { byRequests, type Contender, inTurn } from '../rounds.ts';

type Contend = (measured: Measured, requests: OauthRequests) => Contender;

export const measureOauthOpaque = () =>
  measureBeside({ name: 'oauth-opaque', unit: 'req/s', atLeast: 3 }, (measured, { opaque }) =>
    byRequests(measured, [toBuffer(opaque)]),
  );

export const measureOauthEs256 = () =>
  measureBeside({ name: 'oauth-es256', unit: 'req/s', atLeast: 2 }, (measured, { jwt }) =>
    byRequests(measured, [toBuffer(jwt)]),
  );

export const measureOauthIntrospect = () =>
  measureBeside({ name: 'oauth-introspect', unit: 'req/s', atLeast: 3 }, (measured, { introspections }) =>
    byRequests(measured, introspections.map(toBuffer)),
  );

export const measureOauthCodeFlow = () =>
  measureBeside({ name: 'oauth-code-flow', unit: 'flows/s', atLeast: 1.5 }, (measured, { flow }) =>
    byCodeFlows(measured, flow),
  );

async function measureBeside(rated: Omit<Rated, 'against'>, contend: Contend): Promise<Result[]> {
  const server = await startCountersign({ env: OAUTH_ENV });
  const ours = contend(server, await prepareOauth(server));
  // One after the other: each is warmed up by what it prepares, on the same core.
  const oidcProvider = await startPeer('oidc-provider-sqlite');
  const betterAuth = await startPeer('better-auth-oauth');
  const peers = [
    { name: 'oidc-provider-sqlite' as const, ...oidcProvider },
    { name: 'better-auth-oauth' as const, ...betterAuth },
  ];
  const theirs = peers.flatMap(({ program }) => (program ? [contend(program, program)] : []));
  const [rounds, ...rest] = await inTurn([ours, ...theirs]);
  await Promise.all([server.stop(), ...peers.map(({ program }) => program?.stop())]);
  return peers.map(({ name, program, missing }) => {
    const beside = { ...rated, against: PEERS[name] };
    const measured = program ? rest.shift() : undefined;
    return measured ? rateResult(beside, rounds, measured) : missingResult(beside, missing, rounds);
  });
}
