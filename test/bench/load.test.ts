import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { arrive, saturate } from '../../bench/load.ts';
import { post } from '../../bench/requests.ts';

async function listen(listener: RequestListener): Promise<number> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

const REQUESTS = [post('/a', 'caller', { n: 1 }), post('/b', null, { n: 2 })];

const saturating = (port: number) => saturate({ port, requests: REQUESTS, connections: 4, durationMs: 100 });
const arriving = (port: number, connections = 4) =>
  arrive({ port, requests: REQUESTS, connections, durationMs: 100, ratePerSecond: 500 });

describe('saturate()', () => {
  it('sends the requests in turn, and counts the answers', async () => {
    const seen: string[] = [];
    const port = await listen((request, response) => {
      seen.push(`${request.method} ${request.url} ${request.headers.authorization}`);
      request.resume().on('end', () => response.end('{}'));
    });
    expect(await saturating(port)).toBeGreaterThan(0);
    expect(new Set(seen)).toEqual(new Set(['POST /a Bearer caller', 'POST /b undefined']));
    const ofOne = seen.filter((line) => line.startsWith('POST /a')).length;
    expect(Math.abs(2 * ofOne - seen.length)).toBeLessThanOrEqual(1);
  });

  it.each<[string, RequestListener]>([
    [
      'in pieces',
      (_, response) => {
        response.writeHead(201, { 'Content-Length': 12 });
        response.write('{"a":');
        setTimeout(() => response.end('"long"}'), 2);
      },
    ],
    [
      'in chunks',
      (_, response) => {
        response.write('{');
        setTimeout(() => response.end('}'), 2);
      },
    ],
    [
      'with a header as others write it',
      (_, response) => {
        response.writeHead(200, { 'content-length': 2 });
        response.end('{}');
      },
    ],
    [
      'without a body',
      (_, response) => {
        response.writeHead(200, { 'Content-Length': 0 });
        response.end();
      },
    ],
  ])('takes an answer %s', async (_, listener) => {
    expect(await saturating(await listen(listener))).toBeGreaterThan(0);
  });

  it.each([301, 401, 500])('fails on an answer of %d', async (status) => {
    let count = 0;
    const port = await listen((_, response) => {
      response.statusCode = ++count < 3 ? 200 : status;
      response.end('refused');
    });
    await expect(saturating(port)).rejects.toThrow(/Wanted a 2xx answer.*refused/s);
  });

  it('fails when the server closes the connection', async () => {
    const port = await listen((request) => request.socket.destroy());
    await expect(saturating(port)).rejects.toThrow();
  });
});

describe('arrive()', () => {
  it('sends what falls due and no more', async () => {
    let count = 0;
    const port = await listen((_, response) => {
      count++;
      response.end('{}');
    });
    expect(await arriving(port)).toHaveLength(50);
    expect(count).toBe(50);
  });

  it('charges a stall to every request that fell due meanwhile', async () => {
    let stalled = false;
    const port = await listen((_, response) => {
      if (stalled) response.end('{}');
      else setTimeout(() => response.end('{}'), 200);
      stalled = true;
    });
    // The last of them was due after 98 ms, and could be sent once the first was answered.
    const latencies = await arriving(port, 1);
    expect(latencies).toHaveLength(50);
    expect(Math.min(...latencies)).toBeGreaterThan(90);
  });

  it('fails on an answer that is not 2xx', async () => {
    const port = await listen((_, response) => {
      response.statusCode = 429;
      response.end();
    });
    await expect(arriving(port)).rejects.toThrow('Wanted a 2xx answer');
  });
});
