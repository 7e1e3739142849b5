import type { LookupAddress } from 'node:dns';
import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, isIP, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createOutbound, type OutboundOptions } from '../../server/outbound.ts';
import { newCertificate } from '../support/certificate.ts';
import { freePort } from '../support/services.ts';

function openOutbound(options: Partial<OutboundOptions> = {}) {
  const outbound = createOutbound({ allowLoopbackHttp: true, ...options });
  onTestFinished(() => outbound.close());
  return outbound;
}

async function portOf(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function listen(listener: RequestListener) {
  const server = createHttpServer(listener);
  const url = `http://127.0.0.1:${await portOf(server)}`;
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return url;
}

/** A TCP server that does with each connection as it is told. */
async function listenRaw(onConnection: (socket: Socket) => void) {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onConnection(socket);
  });
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `http://127.0.0.1:${await portOf(server)}`;
}

describe('refusal()', () => {
  const loopback = createOutbound({ allowLoopbackHttp: true });
  const elsewhere = createOutbound({ allowLoopbackHttp: false });

  it.each([
    'https://example.com/hooks?token=1',
    'https://example.com:8443',
    'https://93.184.216.34',
    'https://[2606:4700::1111]/',
    'HTTPS://EXAMPLE.COM',
  ])('allows https to another host: %s', (url) => {
    expect(loopback.refusal(url)).toBeNull();
    expect(elsewhere.refusal(url)).toBeNull();
  });

  it.each([
    'http://localhost:3000/hooks',
    'http://127.0.0.1',
    'http://127.1.2.3:8081',
    'http://[::1]:3000',
    'http://2130706433/',
    'http://0x7f.1/',
    'http://0177.0.0.1/',
    'http://127.1',
    'http://[::ffff:127.0.0.1]/',
    'http://[::ffff:7f00:1]/',
    'http://app.localhost',
    'http://localhost.:3000',
    'http://0/',
    'http://[::]/',
    'https://localhost',
    'https://127.0.0.1:8443/',
  ])('allows this host only while PUBLIC_URL is loopback: %s', (url) => {
    expect(loopback.refusal(url)).toBeNull();
    expect(elsewhere.refusal(url)).toMatch(/^wanted an address of another host/);
  });

  it.each([
    ['http://example.com', 'wanted https, found http'],
    ['http://localhost.example.com', 'wanted https, found http'],
    ['http://127.0.0.1.example.com', 'wanted https, found http'],
    ['http://8.8.8.8', 'wanted https, found http'],
    ['https://10.0.0.1', 'wanted a public address, found one that is not'],
    ['https://012.1.2.3', 'wanted a public address, found one that is not'],
    ['https://01200034567', 'wanted a public address, found one that is not'],
    ['https://0x0a000001', 'wanted a public address, found one that is not'],
    ['https://169.254.169.254/latest/meta-data', 'wanted a public address, found one that is not'],
    ['https://192.0.2.1', 'wanted a public address, found one that is not'],
    ['https://[2001:db8::1]', 'wanted a public address, found one that is not'],
    ['https://[2002:7f00:1::]', 'wanted a public address, found one that is not'],
    ['https://[64:ff9b::7f00:1]', 'wanted a public address, found one that is not'],
    ['https://[::7f00:1]', 'wanted a public address, found one that is not'],
    ['https://[4000::1]', 'wanted a public address, found one that is not'],
    ['https://[fe80::1]', 'wanted a public address, found one that is not'],
    ['http://[::2]', 'wanted a public address, found one that is not'],
    ['https://example.com:22', 'wanted port 80, 443 or one from 1024 on, found 22'],
    ['https://example.com:1023', 'wanted port 80, 443 or one from 1024 on, found 1023'],
    ['ftp://example.com', 'wanted https, found ftp'],
    ['ftp://127.0.0.1', 'wanted https, found ftp'],
    ['file:///etc/passwd', 'wanted https, found file'],
    ['javascript:alert(1)', 'wanted https, found javascript'],
    ['https://user@example.com', 'wanted a URL without credentials, found some'],
    ['https://:pass@example.com', 'wanted a URL without credentials, found some'],
    ['http://user:pass@127.0.0.1', 'wanted a URL without credentials, found some'],
    ['example.com/hooks', 'wanted an absolute URL, found none'],
    ['https://', 'wanted an absolute URL, found none'],
    ['', 'wanted an absolute URL, found none'],
    [`https://example.com/${'x'.repeat(2029)}`, 'wanted at most 2048 characters, found 2049'],
  ])('refuses %s', (url, reason) => {
    expect(loopback.refusal(url)).toBe(reason);
    expect(elsewhere.refusal(url)).toMatch(/^wanted/);
  });
});

describe('post()', () => {
  it('sends the headers and the body, and answers the status', async () => {
    let seen = '';
    const url = await listen(async (request, response) => {
      for await (const chunk of request) seen += chunk;
      response.writeHead(request.headers['x-test'] === 'yes' && request.method === 'POST' ? 202 : 400).end();
    });
    expect(await openOutbound().post(url, { 'x-test': 'yes' }, 'body ä')).toEqual({
      status: 202,
      body: '',
      retryAfter: null,
    });
    expect(seen).toBe('body ä');
  });

  it('refuses a URL that may no longer be sent to, and sends nothing', async () => {
    let hits = 0;
    const url = await listen((_, response) => {
      hits++;
      response.end();
    });
    const outbound = openOutbound({ allowLoopbackHttp: false });
    await expect(outbound.post(url, {}, '')).rejects.toMatchObject({
      name: 'OutboundError',
      message: expect.stringMatching(/^The URL is not allowed: wanted an address of another host/),
    });
    expect(hits).toBe(0);
  });

  it('follows no redirect', async () => {
    const paths: (string | undefined)[] = [];
    const url = await listen((request, response) => {
      paths.push(request.url);
      response.writeHead(307, { location: '/elsewhere' }).end();
    });
    expect(await openOutbound().post(`${url}/here`, {}, '')).toMatchObject({ status: 307 });
    expect(paths).toEqual(['/here']);
  });

  it('reads no more than the beginning of an endless answer', async () => {
    const url = await listen((_, response) => {
      response.writeHead(200);
      const endless = setInterval(() => response.write('x'.repeat(1024)), 1);
      response.on('close', () => clearInterval(endless));
    });
    // An answer that were read to its end would take the whole of the time allowed.
    const began = performance.now();
    expect(await openOutbound({ totalTimeoutMs: 20_000 }).post(url, {}, '')).toMatchObject({ status: 200 });
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  it('takes the status for the answer when the body never ends', async () => {
    const url = await listen((_, response) => void response.writeHead(204).flushHeaders());
    const slow = await listen((_, response) => void response.writeHead(201).write('x'));
    const outbound = openOutbound({ totalTimeoutMs: 200 });
    expect(await outbound.post(url, {}, '')).toMatchObject({ status: 204 });
    expect(await outbound.post(slow, {}, '')).toMatchObject({ status: 201 });
  });

  it('keeps connections for the next request', async () => {
    const ports = new Set<number | undefined>();
    const url = await listen((request, response) => {
      ports.add(request.socket.remotePort);
      response.end('ok');
    });
    const outbound = openOutbound();
    for (let i = 0; i < 10; i++) await outbound.post(url, {}, 'x');
    expect(ports.size).toBeLessThan(10);
  });

  it.each([
    ['answers nothing', () => {}, 'No answer within 200 ms'],
    ['hangs up', (socket: Socket) => socket.destroy(), 'No answer: UND_ERR_SOCKET'],
    [
      'speaks no HTTP',
      (socket: Socket) => socket.end('220 mail ready\r\n\r\n'),
      'No answer: what came is not HTTP',
    ],
    [
      'trickles headers without end',
      (socket: Socket) => {
        socket.write('HTTP/1.1 200 OK\r\n');
        const trickle = setInterval(() => socket.write('x-more: 1\r\n'), 20);
        socket.on('close', () => clearInterval(trickle));
      },
      'No answer within 200 ms',
    ],
  ])('throws when the other side %s', async (_, behave, message) => {
    const url = await listenRaw(behave);
    const outbound = openOutbound({ totalTimeoutMs: 200 });
    await expect(outbound.post(`${url}/secret-path`, {}, '')).rejects.toThrow(message);
    await expect(outbound.post(`${url}/secret-path`, {}, '')).rejects.not.toThrow('secret-path');
  });

  it('throws when nobody listens', async () => {
    const outbound = openOutbound();
    await expect(outbound.post(`http://127.0.0.1:${await freePort()}`, {}, '')).rejects.toThrow(
      'No answer: ECONNREFUSED',
    );
  });

  it('throws when no connection comes about in time, TLS included', async () => {
    const url = (await listenRaw(() => {})).replace('http', 'https');
    const outbound = openOutbound({ connectTimeoutMs: 200, totalTimeoutMs: 20_000 });
    await expect(outbound.post(url, {}, '')).rejects.toThrow('No connection within 200 ms');
  });
});

/** Every spelling of this host that has got past somebody's guard, and whose. */
const THIS_HOST = [
  ['127.0.0.1', 'as past ssrf-agent, CVE-2021-23718: no lookup is made of a literal'],
  ['localhost', 'a name that needs no resolver'],
  ['[::1]', 'as past request-filtering-agent, its issue 2'],
  ['[000:0:0000::01]', 'as past ip, CVE-2024-29415'],
  ['[::ffff:127.0.0.1]', 'as past ip, CVE-2024-29415'],
  ['[::fFFf:127.0.0.1]', 'as past ip, CVE-2024-29415'],
  ['[::ffff:7f00:1]', 'as past ssrfcheck, CVE-2026-43929'],
  ['0x7f.1', 'as past ip, CVE-2023-42282'],
  ['0x7f000001', 'as past ip, CVE-2023-42282'],
  ['2130706433', 'one number'],
  [
    '0177.0.0.1',
    'as past ip-address, CVE-2026-54272, CVE-2026-69192 and CVE-2026-69198: two readers, two addresses',
  ],
  ['127.1', 'as past ip, CVE-2024-29415'],
  ['0', 'the unspecified address'],
] as const;

/** A server on loopback that counts connections: what gets there got past the guard. */
async function trap() {
  const seen = { connections: 0 };
  const url = await listenRaw((socket) => {
    seen.connections++;
    socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
  });
  return { seen, port: new URL(url).port };
}

const resolvesTo = (...answers: string[][]) => {
  let calls = 0;
  return async () =>
    (answers[Math.min(calls++, answers.length - 1)] ?? []).map((address) => ({
      address,
      family: isIP(address),
    }));
};

describe('the guard of addresses', () => {
  it.each(THIS_HOST)('lets nothing through to this host by the name %s (%s)', async (host) => {
    const { seen, port } = await trap();
    const outbound = openOutbound({ allowLoopbackHttp: false, allowSubnets: ['127.0.0.0/8', '::1'] });
    for (const scheme of ['http', 'https']) {
      await expect(outbound.post(`${scheme}://${host}:${port}/`, {}, '')).rejects.toThrow('not allowed');
    }
    expect(seen.connections).toBe(0);
  });

  it.each(['127.0.0.1', '::1', '::ffff:127.0.0.1', '10.1.2.3', '169.254.169.254', 'fd00::1', '0.0.0.0'])(
    'judges what a name resolves to, which got past nossrf (CVE-2025-2691): %s',
    async (address) => {
      const { seen, port } = await trap();
      const outbound = openOutbound({ allowLoopbackHttp: false, resolve: resolvesTo([address]) });
      await expect(outbound.post(`https://rebound.example:${port}/`, {}, '')).rejects.toThrow(
        'The address is not allowed: wanted',
      );
      expect(seen.connections).toBe(0);
    },
  );

  it('refuses a name of which one answer among public ones is not', async () => {
    const { seen, port } = await trap();
    for (const answers of [
      ['93.184.216.34', '127.0.0.1'],
      ['127.0.0.1', '93.184.216.34'],
      ['2606:4700::1111', '::1'],
    ]) {
      const outbound = openOutbound({ allowLoopbackHttp: false, resolve: resolvesTo(answers) });
      await expect(outbound.post(`https://mixed.example:${port}/`, {}, '')).rejects.toThrow(
        'The address is not allowed',
      );
    }
    expect(seen.connections).toBe(0);
  });

  it('gives a resolver that answers otherwise the second time nothing to change, as at typebot (GHSA-hgqq-whf5-mrrf)', async () => {
    const { seen, port } = await trap();
    let calls = 0;
    const answer = resolvesTo(['127.0.0.2'], ['127.0.0.1']);
    const outbound = openOutbound({
      allowLoopbackHttp: false,
      allowSubnets: ['192.0.2.0/24'],
      connectTimeoutMs: 500,
      resolve: async () => {
        calls++;
        // One that is allowed first, and by RFC 5737 nobody's.
        return calls === 1 ? [{ address: '192.0.2.1', family: 4 }] : answer();
      },
    });
    await expect(outbound.post(`https://rebinding.example:${port}/`, {}, '')).rejects.toThrow('No ');
    expect(calls).toBe(1);
    await expect(outbound.post(`https://rebinding.example:${port}/`, {}, '')).rejects.toThrow(
      'The address is not allowed',
    );
    expect(seen.connections).toBe(0);
  });

  it('sends to a subnet that is open, over http too, by address and by name', async () => {
    const subnets = { allowLoopbackHttp: false, allowSubnets: ['10.0.0.0/8', 'fd00::/8', '192.168.1.5'] };
    const outbound = openOutbound(subnets);
    for (const url of [
      'http://10.1.2.3:8080/',
      'https://10.1.2.3',
      'http://[fd00::1]/',
      'http://192.168.1.5',
    ]) {
      expect(outbound.refusal(url)).toBeNull();
    }
    expect(outbound.refusal('http://192.168.1.6')).toMatch('wanted a public address');
    expect(outbound.refusal('http://intranet.example')).toBeNull();
    const named = openOutbound({ ...subnets, resolve: resolvesTo(['93.184.216.34']) });
    await expect(named.post('http://intranet.example', {}, '')).rejects.toThrow(
      'The address is not allowed: wanted https, found http',
    );
  });

  it('dials the answer it judged', async () => {
    const { seen, port } = await trap();
    const outbound = openOutbound({
      resolve: resolvesTo(['127.0.0.1'], ['10.0.0.1']),
      allowSubnets: ['10.0.0.0/8'],
    });
    expect(await outbound.post(`http://intranet.example:${port}/`, {}, '')).toMatchObject({ status: 200 });
    expect(seen.connections).toBe(1);
  });
});

/** What is nobody's, or not everybody's: each block by its first address and its last. */
const RESERVED = [
  ['0.0.0.0/8', '0.0.0.1', '0.255.255.255'],
  ['10.0.0.0/8', '10.0.0.0', '10.255.255.255'],
  ['100.64.0.0/10', '100.64.0.0', '100.127.255.255'],
  ['169.254.0.0/16', '169.254.0.0', '169.254.255.255'],
  ['172.16.0.0/12', '172.16.0.0', '172.31.255.255'],
  ['192.0.0.0/24', '192.0.0.0', '192.0.0.255'],
  ['192.0.2.0/24', '192.0.2.0', '192.0.2.255'],
  ['192.31.196.0/24', '192.31.196.0', '192.31.196.255'],
  ['192.52.193.0/24', '192.52.193.0', '192.52.193.255'],
  ['192.88.99.0/24', '192.88.99.0', '192.88.99.255'],
  ['192.168.0.0/16', '192.168.0.0', '192.168.255.255'],
  ['192.175.48.0/24', '192.175.48.0', '192.175.48.255'],
  ['198.18.0.0/15', '198.18.0.0', '198.19.255.255'],
  ['198.51.100.0/24', '198.51.100.0', '198.51.100.255'],
  ['203.0.113.0/24', '203.0.113.0', '203.0.113.255'],
  ['224.0.0.0/4', '224.0.0.0', '239.255.255.255'],
  ['240.0.0.0/4', '240.0.0.0', '255.255.255.255'],
  ['below 2000::/3', '::2', '1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['64:ff9b::/96', '64:ff9b::', '64:ff9b::ffff:ffff'],
  ['100::/64', '100::', '100::ffff:ffff:ffff:ffff'],
  ['2001::/23', '2001::', '2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:db8::/32', '2001:db8::', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2002::/16', '2002::', '2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2620:4f:8000::/48', '2620:4f:8000::', '2620:4f:8000:ffff:ffff:ffff:ffff:ffff'],
  ['3fff::/20', '3fff::', '3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['above 2000::/3', '4000::', 'fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fc00::/7', 'fc00::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fe80::/10', 'fe80::', 'febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['ff00::/8', 'ff00::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
] as const;

/** Right beside those, and anybody's. */
const PUBLIC = [
  ...[
    '1.0.0.0',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '126.255.255.255',
    '128.0.0.0',
  ],
  ...['169.253.255.255', '169.255.0.0', '172.15.255.255', '172.32.0.0', '192.0.1.0', '192.0.3.0'],
  ...['192.167.255.255', '192.169.0.0', '198.17.255.255', '198.20.0.0', '223.255.255.255'],
  ...['2000::', '2001:200::', '2001:db7::', '2001:db9::', '2003::', '2620:4f:7fff::', '2620:4f:8001::'],
  ...['3ffe:ffff::', '3fff:1000::'],
];

describe('which addresses are public', () => {
  const { refusal } = createOutbound({ allowLoopbackHttp: false });
  const urlOf = (address: string) => `https://${isIP(address) === 6 ? `[${address}]` : address}/`;

  // Past private-ip, by CVE-2020-28360, got what is reserved and not private.
  it.each(RESERVED)('none of %s: neither %s nor %s', async (_, first, last) => {
    const mapped = [first, last].filter((address) => isIP(address) === 4).map((each) => `::ffff:${each}`);
    const { seen, port } = await trap();
    for (const address of [first, last, ...mapped]) {
      expect(refusal(urlOf(address))).toBe('wanted a public address, found one that is not');
      const outbound = openOutbound({ allowLoopbackHttp: false, resolve: resolvesTo([address]) });
      await expect(outbound.post(`https://named.example:${port}/`, {}, '')).rejects.toThrow(
        'The address is not allowed: wanted a public address',
      );
    }
    expect(seen.connections).toBe(0);
  });

  it.each(PUBLIC)('%s is one', (address) => {
    expect(refusal(urlOf(address))).toBeNull();
  });
});

describe('a receiver that is spoken to by TLS', () => {
  it("is sent nothing under a name that is not its certificate's", async () => {
    const certificate = newCertificate(['receiver.example']);
    let hits = 0;
    const server = createHttpsServer(certificate, (_, response) => {
      hits++;
      response.end();
    });
    const port = await portOf(server);
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    const outbound = openOutbound({ ca: certificate.cert, resolve: resolvesTo(['127.0.0.1']) });
    await expect(outbound.post(`https://other.example:${port}/`, {}, 'secret')).rejects.toThrow(
      'No answer: ERR_TLS_CERT_ALTNAME_INVALID',
    );
    expect(hits).toBe(0);
    expect(await outbound.post(`https://receiver.example:${port}/`, {}, '')).toMatchObject({ status: 200 });
    const distrusting = openOutbound({ resolve: resolvesTo(['127.0.0.1']) });
    await expect(distrusting.post(`https://receiver.example:${port}/`, {}, '')).rejects.toThrow(
      'No answer: DEPTH_ZERO_SELF_SIGNED_CERT',
    );
    expect(hits).toBe(1);
  });
});

describe('a name whose lookup hangs', () => {
  it('is looked up once at a time, fails at once while that goes on, and holds up no other', async () => {
    const url = new URL(await listen((_, response) => response.end()));
    const answers = new Map<string, (answer: LookupAddress[]) => void>();
    const lookups: string[] = [];
    const outbound = openOutbound({
      connectTimeoutMs: 300,
      resolve: (hostname) => {
        lookups.push(hostname);
        if (hostname === 'well.example') return Promise.resolve([{ address: '127.0.0.1', family: 4 }]);
        return new Promise((resolve) => answers.set(hostname, resolve));
      },
      allowSubnets: ['127.0.0.0/8'],
    });
    const post = (hostname: string) => outbound.post(`http://${hostname}:${url.port}/`, {}, '');
    const refused = 'No connection within 300 ms';
    const first = await Promise.allSettled([1, 2, 3].map(() => post('hangs.example')));
    expect(first.map((each) => each.status === 'rejected' && each.reason.message)).toEqual(
      Array(3).fill(refused),
    );
    const began = performance.now();
    await expect(post('hangs.example')).rejects.toThrow(refused);
    expect(performance.now() - began).toBeLessThan(200);
    expect(await post('well.example')).toMatchObject({ status: 200 });
    expect(lookups).toEqual(['hangs.example', 'well.example']);
    answers.get('hangs.example')?.([{ address: '127.0.0.1', family: 4 }]);
    await new Promise(setImmediate);
    const again = post('hangs.example');
    await expect.poll(() => lookups.length).toBe(3);
    answers.get('hangs.example')?.([{ address: '127.0.0.1', family: 4 }]);
    expect(await again).toMatchObject({ status: 200 });
  });
});

describe('what is kept of an answer', () => {
  it('is the first 4 KB as text, without NUL, and Retry-After', async () => {
    const url = await listen((_, response) =>
      response.writeHead(503, { 'retry-after': '120' }).end(`a\0ä${'x'.repeat(10_000)}`),
    );
    const { body, ...rest } = await openOutbound().post(url, {}, '');
    expect(rest).toEqual({ status: 503, retryAfter: '120' });
    expect(body.startsWith('a\ufffdäx')).toBe(true);
    expect(Buffer.byteLength(body)).toBeLessThanOrEqual(4096 + 2);
  });

  it('is that of the status at the end, whatever was told before', async () => {
    const url = await listen((_, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      response.writeHead(202, { 'retry-after': '7' }).end('taken');
    });
    expect(await openOutbound().post(url, {}, '')).toEqual({ status: 202, retryAfter: '7', body: 'taken' });
  });

  it('is as much as is read of a long one that ends with its connection', async () => {
    const url = await listen((_, response) => {
      response.writeHead(200, { connection: 'close' }).end('x'.repeat(100_000));
    });
    const outbound = openOutbound();
    for (let i = 0; i < 3; i++)
      expect(await outbound.post(url, {}, '')).toMatchObject({ status: 200, body: 'x'.repeat(4096) });
  });

  it('is waited for no longer than allowed while there is no connection yet, and then nothing is sent', async () => {
    let answer: (addresses: { address: string; family: number }[]) => void = () => {};
    const resolving = new Promise<{ address: string; family: number }[]>((resolve) => {
      answer = resolve;
    });
    let requests = 0;
    const url = await listen((_, response) => {
      requests++;
      response.end();
    });
    const outbound = openOutbound({
      totalTimeoutMs: 200,
      allowSubnets: ['127.0.0.0/8'],
      resolve: () => resolving,
    });
    const named = url.replace('127.0.0.1', 'hooks.example');
    await expect(outbound.post(named, {}, '')).rejects.toThrow('No answer within 200 ms');
    answer([{ address: '127.0.0.1', family: 4 }]);
    await sleep(300);
    expect(requests).toBe(0);
  });

  it('is what came in time of one that stops', async () => {
    const url = await listen((_, response) => void response.writeHead(500).write('half'));
    expect(await openOutbound({ totalTimeoutMs: 300 }).post(url, {}, '')).toMatchObject({ body: 'half' });
  });
});

describe('get() and read()', () => {
  const limits = { bytesMax: 100, timeoutMs: 2_000 };

  it('answer a document whole, with what its server says of it', async () => {
    const url = await listen((_, response) => {
      response.writeHead(200, { 'cache-control': 'max-age=60' }).end('{"a":1}');
    });
    const outbound = openOutbound();
    expect(await outbound.get(url, 100)).toBe('{"a":1}');
    expect(await outbound.read(url, limits)).toMatchObject({
      status: 200,
      body: '{"a":1}',
      headers: { 'cache-control': 'max-age=60' },
    });
  });

  it('leave a body of another status alone, however it goes on, and nothing fails later', async () => {
    const url = await listen((_, response) => {
      response.writeHead(404).write('x'.repeat(1_000));
    });
    const outbound = openOutbound();
    await expect(outbound.get(url, 100)).rejects.toThrow('Wanted the status 200, found 404');
    expect(await outbound.read(url, limits)).toMatchObject({ status: 404, body: '' });
    // An error that nobody listens for would come by now, and fail this test.
    await new Promise((resolve) => setImmediate(resolve));
  });

  it('follow no redirect', async () => {
    let requests = 0;
    const url = await listen((request, response) => {
      requests++;
      response.writeHead(302, { location: `${request.url}elsewhere` }).end();
    });
    const outbound = openOutbound();
    expect(await outbound.read(url, limits)).toMatchObject({ status: 302, body: '' });
    await expect(outbound.get(url, 100)).rejects.toThrow('found 302');
    expect(requests).toBe(2);
  });

  it('refuse more than a document may be, and one that takes too long', async () => {
    const outbound = openOutbound();
    const long = await listen((_, response) => void response.writeHead(200).end('x'.repeat(101)));
    await expect(outbound.read(long, limits)).rejects.toThrow('Wanted at most 100 bytes, found more');
    const slow = await listen((_, response) => void response.writeHead(200).write('x'));
    await expect(outbound.read(slow, { ...limits, timeoutMs: 100 })).rejects.toThrow(
      'No answer within 100 ms',
    );
  });
});
