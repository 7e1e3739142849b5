/** Minting M2M tokens, each with a durable row. */
import { createMinter, mintRequest } from '../minter.ts';
import { PEERS, startPeer } from '../peers.ts';
import { startCountersign, startFloor } from '../processes.ts';
import { post } from '../requests.ts';
import { missingResult, type Result, rateResult } from '../results.ts';
import { byPeerRequests, byRequests, inTurn } from '../rounds.ts';

export async function measureMintOpaque(): Promise<Result[]> {
  const server = await startCountersign();
  const secret = await createMinter(server);
  const ours = byRequests(server, [mintRequest(secret)]);
  const { program: peer, missing } = await startPeer('oidc-provider');
  const [rounds, theirs] = await inTurn([ours, ...(peer ? [byPeerRequests(peer)] : [])]);
  await Promise.all([server.stop(), peer?.stop()]);
  const rated = { name: 'mint-opaque', against: PEERS['oidc-provider'], unit: 'req/s', atLeast: 1.5 };
  return [theirs ? rateResult(rated, rounds, theirs) : missingResult(rated, missing, rounds)];
}

export async function measureMintEs256(): Promise<Result[]> {
  const server = await startCountersign({ env: { COUNTERSIGN_SIGNING_ALG: 'ES256' } });
  const secret = await createMinter(server);
  const floor = await startFloor('es256');
  const rounds = await inTurn([
    byRequests(server, [mintRequest(secret, { token_format: 'jwt' })]),
    byRequests(floor, [post('/', null, {})]),
  ]);
  await Promise.all([server.stop(), floor.stop()]);
  const against = 'node:http + node:crypto, no row';
  return [rateResult({ name: 'mint-es256', against, unit: 'req/s', atLeast: 0.4 }, ...rounds)];
}
