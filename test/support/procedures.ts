/** Servers inside a test's own process: one that answers procedures, and one that behaves as the test says. */
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createHTTPHandler } from '@trpc/server/adapters/standalone';
import { onTestFinished } from 'vitest';
import type { Deps } from '../../server/deps.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { appRouter } from '../../server/trpc/router.ts';

export interface Listening {
  url: string;
  /** The paths asked for, in order. */
  paths: string[];
}

/** Answers with `listener` on a free loopback port until the test ends. */
export async function listen(listener: RequestListener): Promise<Listening> {
  const paths: string[] = [];
  const server = createServer((request, response) => {
    paths.push(request.url ?? '');
    listener(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths };
}

const addressOf = ({ socket }: IncomingMessage) => socket.remoteAddress ?? '';

/** The real procedures and hot routes, without the rest of the server. */
export function serveProcedures(deps: Deps): Promise<Listening> {
  let requests = 0;
  const feeds = createFeeds(deps, createLogger('silent'));
  onTestFinished(() => feeds.close());
  const hot = createHotRoutes({ deps, feeds, addressOf });
  const procedures = createHTTPHandler({
    basePath: '/trpc/',
    router: appRouter,
    allowMethodOverride: true,
    createContext: ({ req }) => ({
      deps,
      authorization: req.headers.authorization,
      address: () => addressOf(req),
      requestId: `req_${++requests}`,
    }),
  });
  return listen((request, response) => {
    if (!hot(request, response, `req_${++requests}`, 0)) procedures(request, response);
  });
}
