/** Client-id metadata documents, served by TLS and fetched for real. */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { createClientDocuments } from '../../server/domain/client-metadata-documents.ts';
import { createOutbound, type Outbound } from '../../server/outbound.ts';
import { newCertificate } from './certificate.ts';
import type { TestDeps } from './deps.ts';

export const CLIENT_HOST = 'client.example';

/** Other hosts are vouched for by nobody. */
const CERTIFICATE = newCertificate([CLIENT_HOST, 'other.example', '*.many.example']);

export type Answering = (request: IncomingMessage, response: ServerResponse) => void;

export interface DocumentSite {
  /** What it was asked, in order. */
  asked: IncomingMessage[];
  answer: Answering;
}

/** Answers every request with a document, or a text. */
export const answering =
  (body: unknown, headers: Record<string, string> = {}, status = 200): Answering =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };

/**
 * The same deps, fetching from one server on loopback, which is every host. It has another port than 443, so the port is put
 * in on the way; which URLs and addresses may be asked is judged by the real parts.
 */
export async function withDocuments(
  deps: TestDeps,
  answer: Answering,
): Promise<{ deps: TestDeps; site: DocumentSite }> {
  const site: DocumentSite = { asked: [], answer };
  const server = createServer(CERTIFICATE, (request, response) => {
    site.asked.push(request);
    site.answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const outbound = createOutbound({
    allowLoopbackHttp: true,
    ca: CERTIFICATE.cert,
    resolve: () => Promise.resolve([{ address: '127.0.0.1', family: 4 }]),
  });
  onTestFinished(async () => {
    await outbound.close();
    server.close();
    server.closeAllConnections();
  });
  const read: Outbound['read'] = (url, options) => {
    const place = new URL(url);
    place.port = `${port}`;
    return outbound.read(place.href, options);
  };
  return { deps: { ...deps, clientDocuments: createClientDocuments({ read }, deps.now) }, site };
}
