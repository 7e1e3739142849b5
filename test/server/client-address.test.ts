import { describe, expect, it } from 'vitest';
import { clientAddress, createProxyList } from '../../server/client-address.ts';

const PROXIES = createProxyList(['10.0.0.0/8', '192.0.2.7', 'fd00::/8']);

describe('clientAddress()', () => {
  it.each([
    [
      'a peer that is no proxy is the client, whatever it says',
      '203.0.113.5',
      '10.1.1.1, 198.51.100.9',
      '203.0.113.5',
    ],
    ['a proxy that says nothing is the client', '10.0.0.1', undefined, '10.0.0.1'],
    ['of a proxy the last address counts', '10.0.0.1', '198.51.100.9', '198.51.100.9'],
    ['what stands left of it was sent by the client', '10.0.0.1', '127.0.0.1, 198.51.100.9', '198.51.100.9'],
    [
      'proxies behind proxies are passed over',
      '10.0.0.1',
      '198.51.100.9, 192.0.2.7, fd00::1',
      '198.51.100.9',
    ],
    ['where all are proxies, the first is the client', '10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['what is no address ends the walk', '10.0.0.1', '198.51.100.9, unknown, 10.0.0.2', '10.0.0.2'],
    ['an address that IPv6 wraps is the address', '::ffff:10.0.0.1', '::FFFF:198.51.100.9', '198.51.100.9'],
    ['an empty list says nothing', '10.0.0.1', '', '10.0.0.1'],
  ])('%s', (_rule, peer, forwardedFor, client) => {
    expect(clientAddress(peer, forwardedFor, PROXIES)).toBe(client);
  });

  it('believes nobody where no proxy is trusted', () => {
    expect(clientAddress('127.0.0.1', '198.51.100.9', createProxyList([]))).toBe('127.0.0.1');
  });
});
