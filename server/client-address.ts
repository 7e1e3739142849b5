import { BlockList, isIP } from 'node:net';

/** Which peers are proxies of ours, so that what they say of a client's address is believed. */
export function createProxyList(blocks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const block of blocks) {
    const [address = '', bits] = block.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family);
  }
  return list;
}

/**
 * The client's address: the peer's, or, where the peer is a trusted proxy, the last address in `X-Forwarded-For` that
 * is not one. It is read right to left, because everything left of what our own proxies wrote was sent by the client.
 * Something that is not an address ends the walk at the proxy that passed it on.
 */
export function clientAddress(peer: string, forwardedFor: string | undefined, proxies: BlockList): string {
  let client = normalise(peer);
  for (const hop of (forwardedFor ?? '').split(',').reverse()) {
    if (!isTrusted(client, proxies)) return client;
    const address = normalise(hop.trim());
    if (isIP(address) === 0) return client;
    client = address;
  }
  return client;
}

function isTrusted(address: string, proxies: BlockList): boolean {
  const family = isIP(address);
  return family !== 0 && proxies.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/** An IPv4 address that came through an IPv6 socket is the IPv4 address (RFC 4291, section 2.5.5.2). */
const normalise = (address: string) => address.toLowerCase().replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/, '');
