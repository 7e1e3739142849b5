/** The REST API inside a test's own process. Every answer is held against the OpenAPI document, whoever asked for it. */
import type { ServerResponse } from 'node:http';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, onTestFinished } from 'vitest';
import type { Deps } from '../../server/deps.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { type OpenApiDocument, openApiDocument } from '../../server/rest/openapi.ts';
import { listen } from './procedures.ts';
import { type Answer, send } from './server.ts';

export const DOCUMENT: OpenApiDocument = openApiDocument({
  publicUrl: 'http://127.0.0.1:4400',
  descriptionOf: (procedure) => procedure,
});

const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema(DOCUMENT, 'openapi');

export interface ServedRest {
  url: string;
  /** Sends a request with a credential; a body goes as JSON. */
  ask(method: string, path: string, options?: AskOptions): Promise<Answer>;
}

export interface AskOptions {
  credential?: string | undefined;
  body?: unknown;
  headers?: Record<string, string>;
}

/** Serves every route. A test that saw an answer outside the document fails at its end. */
export async function serveRest(deps: Deps): Promise<ServedRest> {
  const outside: string[] = [];
  const feeds = createFeeds(deps, createLogger('silent'));
  const failures: unknown[] = [];
  const routes = createHotRoutes({
    deps,
    feeds,
    addressOf: ({ socket }) => socket.remoteAddress ?? '',
    report: ({ cause }) => failures.push(cause),
  });
  const { url } = await listen((request, response) => {
    watch(response, (text) => {
      const problem = problemOf(request.method ?? '', request.url ?? '', response.statusCode, text);
      if (problem !== null) outside.push(problem);
    });
    // What nothing takes is answered as the rest of the server would.
    if (!routes(request, response, 'req_test', 0))
      response.writeHead(404, { 'Content-Type': 'application/json' }).end(JSON.stringify(NOTHING_THERE));
  });
  onTestFinished(() => {
    feeds.close();
    expect({ outside, failures }).toEqual({ outside: [], failures: [] });
  });
  return {
    url,
    ask: (method, path, { credential, body, headers } = {}) =>
      send(url + path, {
        method,
        headers: {
          ...(credential !== undefined && { authorization: `Bearer ${credential}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      }),
  };
}

const NOTHING_THERE = {
  errors: [{ code: 'not_found', message: 'There is no such thing', long_message: 'Nothing has this path' }],
  clerk_trace_id: 'req_test',
};

/** Tells of the whole text of an answer when it is sent. */
function watch(response: ServerResponse, told: (text: string) => void) {
  const end = response.end.bind(response) as (chunk?: unknown) => ServerResponse;
  response.end = ((chunk?: unknown) => {
    if (typeof chunk === 'string' && chunk !== '') told(chunk);
    return end(chunk);
  }) as typeof response.end;
}

/** What is wrong with an answer by the document, or null. What the document does not have may only be refused. */
function problemOf(method: string, url: string, status: number, text: string): string | null {
  const place = `${method} ${url} ${status}`;
  const [path = ''] = url.split('?');
  const template = templateOf(path);
  const verb = method === 'HEAD' ? 'get' : method.toLowerCase();
  const operation = template && DOCUMENT.paths[template]?.[verb];
  if (!operation) {
    const isRefusal = [400, 404, 405].includes(status);
    return isRefusal ? invalid('#/components/schemas/Errors', place, text) : `${place}: not in the document`;
  }
  const response = operation.responses[status];
  if (!response) return `${place}: a status that the document does not have`;
  if ('$ref' in response) return invalid('#/components/schemas/Errors', place, text);
  const [type = ''] = Object.keys(response.content ?? {});
  if (type !== 'application/json') return null;
  const pointer = ['paths', template, verb, 'responses', status, 'content', type, 'schema'];
  return invalid(`#/${pointer.map((part) => escaped(String(part))).join('/')}`, place, text);
}

const escaped = (part: string) => part.replaceAll('~', '~0').replaceAll('/', '~1');

function invalid(pointer: string, place: string, text: string): string | null {
  const validate = ajv.getSchema(`openapi${pointer}`);
  if (!validate) return `${place}: nothing at ${pointer}`;
  return validate(JSON.parse(text)) ? null : `${place}: ${ajv.errorsText(validate.errors)}`;
}

const TEMPLATES = Object.keys(DOCUMENT.paths)
  .map((path) => ({ path, pattern: new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]*')}$`) }))
  .sort((one, other) => one.path.split('{').length - other.path.split('{').length);

function templateOf(path: string): string | undefined {
  const versioned = path.startsWith('/v1/') ? path : `/v1${path}`;
  return TEMPLATES.find(({ pattern }) => pattern.test(versioned))?.path;
}
