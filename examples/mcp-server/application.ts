/**
 * An MCP server over streamable HTTP that takes access tokens of Countersign. An agent that has none is told where they are to
 * be had (RFC 9728), and one that may too little what it needs more (RFC 6750): it then asks its user.
 */
import { hostHeaderValidation } from '@modelcontextprotocol/sdk/server/middleware/hostHeaderValidation.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express';
import { type CredentialVerifier, protect, protectedResourceMetadata } from '../../client/express.ts';
import { createNotesServer, SCOPES, TOOL_SCOPES } from './notes.ts';

export interface McpApplicationOptions {
  verifier: CredentialVerifier;
  /** The URL that agents are given, which their tokens must be for. */
  resource: string;
  /** The public URL of the Countersign server. */
  issuer: string;
}

export function createMcpApplication({ verifier, resource, issuer }: McpApplicationOptions): Express {
  const gate = (scopes: readonly string[]) =>
    protect({ verifier, kinds: ['oauth_token'], scopes, resource, resourceRequired: true });
  // What an agent begins with: it asks for more once a tool takes more.
  const entry = gate(['notes:read']);
  const gates = new Map(Object.entries(TOOL_SCOPES).map(([tool, scopes]) => [tool, gate(scopes)]));
  const notesOf = new Map<string, string[]>();

  const ofTool: RequestHandler = (request, response, next) => {
    // One message, and one gate for it: in several at once (no more in MCP since 2025-06-18) a tool could hide.
    if (Array.isArray(request.body))
      return void response.status(400).json(rpcError(-32600, 'Wanted one message'));
    const toolGate = gates.get(toolIn(request.body));
    if (toolGate) toolGate(request, response, next);
    else next();
  };

  const answer: RequestHandler = async (request, response) => {
    const { subject } = entry.authOf(request);
    const notes = notesOf.get(subject) ?? [];
    notesOf.set(subject, notes);
    const server = createNotesServer(notes);
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: true });
    response.on('close', () => void server.close());
    await server.connect(transport);
    await transport.handleRequest(request, response, request.body);
  };

  const { hostname, pathname } = new URL(resource);
  const app = express();
  app.disable('x-powered-by');
  // A page whose name was made to mean this machine asks under its own (DNS rebinding).
  app.use(hostHeaderValidation([hostname]));
  app.use(
    protectedResourceMetadata({ resource, authorizationServers: [issuer], scopes: SCOPES, name: 'Notes' }),
  );
  app.post(pathname, entry, express.json(), ofTool, answer);
  app.all(pathname, (_request, response) => {
    // There are no sessions: nothing to listen to, nothing to end.
    response.status(405).set('Allow', 'POST').json(rpcError(-32000, 'Wanted POST'));
  });
  app.use(answerUnreadable);
  return app;
}

/** The tool that a message calls; empty for every other message. */
function toolIn(message: unknown): string {
  const { method, params } = (message ?? {}) as { method?: unknown; params?: { name?: unknown } };
  return method === 'tools/call' ? String(params?.name) : '';
}

const rpcError = (code: number, message: string) => ({ jsonrpc: '2.0', error: { code, message }, id: null });

const answerUnreadable: ErrorRequestHandler = (error, _request, response, _next) => {
  const isTheirs = error.status >= 400 && error.status < 500;
  response
    .status(isTheirs ? error.status : 500)
    .json(isTheirs ? rpcError(-32700, 'Wanted a JSON-RPC message') : rpcError(-32603, 'Internal error'));
};
