import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalAddress, isCanonicalCidr, isWithin, networkOf } from '../../../server/domain/addresses.ts';

describe('canonicalAddress()', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:7f00:1', '127.0.0.1'],
  ])('writes %s as %s', (address, canonical) => {
    expect(canonicalAddress(address)).toBe(canonical);
  });

  it.each(['', 'localhost', '192.0.2.01', '0x7f000001', '127.1', 'fe80::1%eth0', '192.0.2.1/32'])(
    'is null for %j',
    (text) => {
      expect(canonicalAddress(text)).toBeNull();
    },
  );
});

describe('networkOf()', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::9', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
    ['', 'none'],
  ])('of %s is %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describe('isCanonicalCidr()', () => {
  it.each(['0.0.0.0/0', '192.0.2.0/24', '192.0.2.1/32', '::/0', '2001:db8::/32', '2001:db8::1/128'])(
    'accepts %s',
    (block) => {
      expect(isCanonicalCidr(block)).toBe(true);
    },
  );

  it.each([
    '192.0.2.1',
    '192.0.2.1/24',
    '192.0.2.0/33',
    '192.0.2.0/024',
    '192.0.2.0/-1',
    '192.0.2.0/24/8',
    '2001:DB8::/32',
    '2001:db8:0::/32',
    '2001:db8::1/32',
    '::ffff:192.0.2.0/120',
    'fe80::1%eth0/128',
    '',
    '/8',
  ])('refuses %j', (block) => {
    expect(isCanonicalCidr(block)).toBe(false);
  });
});

describe('isWithin()', () => {
  it('knows an IPv4 address by whatever IPv6 spelling it comes, and never the other family', () => {
    for (const address of ['192.0.2.7', '::ffff:192.0.2.7', '::ffff:c000:207'])
      expect(isWithin(address, ['192.0.2.0/24'])).toBe(true);
    expect(isWithin('2001:db8::1', ['0.0.0.0/0'])).toBe(false);
    expect(isWithin('192.0.2.7', ['::/0'])).toBe(false);
    expect(isWithin('not an address', ['0.0.0.0/0', '::/0'])).toBe(false);
  });

  it('agrees with arithmetic on every IPv4 block', () => {
    const address = (number: number) => [24, 16, 8, 0].map((bits) => (number >>> bits) & 255).join('.');
    const uint32 = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(uint32, uint32, fc.integer({ min: 0, max: 32 }), (one, other, length) => {
        const mask = length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
        const network = (one & mask) >>> 0;
        const block = `${address(network)}/${length}`;
        expect(isCanonicalCidr(block)).toBe(true);
        expect(isWithin(address(other), [block])).toBe((other & mask) >>> 0 === network);
      }),
    );
  });
});
