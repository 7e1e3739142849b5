/** Network addresses and CIDR blocks, each in one canonical form, so that no spelling of an address escapes its block. */
import { BlockList, isIP } from 'node:net';
import { LRUCache } from 'lru-cache';

/** Whether a text is a block as `allowedCidrs` takes it: canonical address, a length, and no bits set beyond that. */
export function isCanonicalCidr(text: string): boolean {
  const [address = '', length = '', ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(length)) return false;
  if (Number(length) > (family === 4 ? 32 : 128) || canonicalAddress(address) !== address) return false;
  return hasOnlyNetworkBits(address, family, Number(length));
}

/**
 * The one form of an address: IPv6 as RFC 5952 has it, and an IPv4 address that came through IPv6 as IPv4 (RFC 4291,
 * section 2.5.5.2). Null for what is no address, and for one with a zone.
 */
export function canonicalAddress(address: string): string | null {
  const family = isIP(address);
  if (family === 0 || address.includes('%')) return null;
  if (family === 4) return address;
  // The URL parser writes IPv6 addresses in their one form (WHATWG URL, IPv6 serializer).
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical);
  if (!mapped) return canonical;
  const [high, low] = [Number.parseInt(mapped[1] ?? '', 16), Number.parseInt(mapped[2] ?? '', 16)];
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}

/** An IPv4 address, or the /64 of an IPv6 address: whoever has one of its addresses has them all. */
export function networkOf(address: string): string {
  const canonical = canonicalAddress(address);
  if (canonical === null) return 'none';
  if (isIP(canonical) === 4) return canonical;
  return groupsOf(canonical).slice(0, 4).join(':');
}

const lists = new LRUCache<string, BlockList>({ max: 1_000 });

/** Whether an address is in any of the blocks. What is no address is in none. */
export function isWithin(address: string, blocks: readonly string[]): boolean {
  const canonical = canonicalAddress(address);
  if (canonical === null) return false;
  const family = isIP(canonical) === 6 ? 'ipv6' : 'ipv4';
  // A list of both would find every IPv4 address in `::/0`.
  return listOf(blocks.filter((block) => block.includes(':') === (family === 'ipv6'))).check(
    canonical,
    family,
  );
}

function listOf(blocks: readonly string[]): BlockList {
  const key = blocks.join(' ');
  const known = lists.get(key);
  if (known) return known;
  const list = new BlockList();
  for (const block of blocks) {
    const [address = '', length] = block.split('/');
    list.addSubnet(address, Number(length), isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }
  lists.set(key, list);
  return list;
}

function hasOnlyNetworkBits(address: string, family: number, length: number): boolean {
  const bits = (family === 4 ? address.split('.').map(Number) : bytesOfIpv6(address))
    .map((byte) => byte.toString(2).padStart(8, '0'))
    .join('');
  return !bits.slice(length).includes('1');
}

function bytesOfIpv6(address: string): number[] {
  return groupsOf(address)
    .map((group) => Number.parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 255]);
}

/** The eight groups of a canonical IPv6 address. */
function groupsOf(address: string): string[] {
  const [head = '', tail] = address.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [before, after] = [groups(head), groups(tail ?? '')];
  const zeros = Array.from({ length: tail === undefined ? 0 : 8 - before.length - after.length }, () => '0');
  return [...before, ...zeros, ...after];
}
