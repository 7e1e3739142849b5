/** Which addresses this server sends requests to: public ones, and what operators open. */
import { BlockList, isIP } from 'node:net';
import { canonicalAddress } from './domain/addresses.ts';

export interface AddressRules {
  /** Whether this host itself may be sent to: only while `PUBLIC_URL` is loopback. */
  allowLoopback: boolean;
  /** CIDR blocks, or single addresses, that may be sent to although they are not public. */
  allowSubnets: readonly string[];
}

/** `open` is by an operator's leave, and may be spoken to without TLS. */
export type AddressKind = 'public' | 'open' | 'this_host' | 'reserved';

/** Answers what kind an address is; whatever is none, or has a zone, is `reserved`. */
export function createAddressGuard({ allowLoopback, allowSubnets }: AddressRules) {
  const opened = listOf(allowSubnets);
  return (address: string): AddressKind => {
    const canonical = canonicalAddress(address);
    if (canonical === null) return 'reserved';
    if (isIn(THIS_HOST, canonical)) return allowLoopback ? 'open' : 'this_host';
    if (isIn(opened, canonical)) return 'open';
    return isPublic(canonical) ? 'public' : 'reserved';
  };
}

interface Lists {
  ipv4: BlockList;
  ipv6: BlockList;
}

/** A list for each family, since one of both would find every IPv4 address in an IPv6 block that holds them. */
function listOf(blocks: readonly string[]): Lists {
  const lists: Lists = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const block of blocks) {
    const [address = '', bits] = block.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    lists[family].addSubnet(address, Number(bits ?? (family === 'ipv6' ? 128 : 32)), family);
  }
  return lists;
}

function isIn(lists: Lists, canonical: string): boolean {
  const family = isIP(canonical) === 6 ? 'ipv6' : 'ipv4';
  return lists[family].check(canonical, family);
}

/** Loopback, and the unspecified addresses: connecting to those reaches this host. */
const THIS_HOST = listOf(['127.0.0.0/8', '0.0.0.0', '::1', '::']);

/** The IANA registries of special-purpose addresses, and multicast. Of IPv6 all but 2000::/3 is reserved anyway. */
const SPECIAL = listOf([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.31.196.0/24',
  '192.52.193.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '192.175.48.0/24',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  // Protocol assignments, among them Teredo, which hides an IPv4 address as 6to4 does below.
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '2620:4f:8000::/48',
  '3fff::/20',
]);

const GLOBAL_UNICAST = listOf(['2000::/3']);

function isPublic(canonical: string): boolean {
  if (isIP(canonical) === 6 && !isIn(GLOBAL_UNICAST, canonical)) return false;
  return !isIn(SPECIAL, canonical);
}
