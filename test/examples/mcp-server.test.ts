import { once } from 'node:events';
import { request, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import * as client2 from '@modelcontextprotocol/client';
import {
  type OAuthClientProvider as ProviderOfSdk1,
  UnauthorizedError as UnauthorizedOfSdk1,
} from '@modelcontextprotocol/sdk/client/auth.js';
import { ClientCredentialsProvider as ClientCredentialsOfSdk1 } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { Client as ClientOfSdk1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportOfSdk1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { Transport as TransportInterfaceOfSdk1 } from '@modelcontextprotocol/sdk/shared/transport.js';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { clientVerifier } from '../../client/express.ts';
import { createCountersign } from '../../client/index.ts';
import { createMcpApplication } from '../../examples/mcp-server/application.ts';
import { createClientDocuments } from '../../server/domain/client-metadata-documents.ts';
import { createOutbound, type Outbound } from '../../server/outbound.ts';
import { describeInBrowser, expectAccessible } from '../support/browser.ts';
import { call } from '../support/calls.ts';
import { newCertificate } from '../support/certificate.ts';
import { openTestDeps, type WhenDone, whenSuiteDone } from '../support/deps.ts';
import { listen } from '../support/procedures.ts';
import { send } from '../support/server.ts';
import { freePort } from '../support/services.ts';
import { type Person, type Started, startAuthorizationServer } from '../support/started.ts';
import { serveOauth, UserAgent } from '../support/user-agent.ts';
import { newUser, PASSWORD } from '../support/users.ts';

/** Somebody who administers a Countersign server. */
type Administer = (procedure: string, input: object) => Promise<Record<string, string>>;

/** The MCP server beside a Countersign server; answers the URL that agents are given. */
async function startMcp(issuer: string, administer: Administer, whenDone: WhenDone): Promise<string> {
  const port = await freePort();
  const resource = `http://127.0.0.1:${port}/mcp`;
  for (const [name, description] of [
    ['notes:read', 'Read your notes'],
    ['notes:write', 'Add notes to yours'],
  ])
    await administer('oauthScopes.create', { name, description, resource });
  const { secret } = await administer('secretKeys.create', { name: 'mcp-server', role: 'verify' });
  const verifier = clientVerifier(createCountersign({ url: issuer, secretKey: secret }));
  const application: Server = createMcpApplication({ verifier, resource, issuer }).listen(port, '127.0.0.1');
  whenDone(async () => {
    application.close();
    application.closeAllConnections();
  });
  await once(application, 'listening');
  return resource;
}

/** Asks, and notes in few words what for and what was answered. */
function recordingFetch(walked: string[]): typeof fetch {
  return async (input, init) => {
    const response = await fetch(input, init);
    const { pathname } = new URL(input instanceof Request ? input.url : input);
    walked.push(`${init?.method ?? 'GET'} ${pathname} ${response.status}`);
    return response;
  };
}

/** An agent by one of the two libraries, which connects anew for each thing that it does. */
interface Agent {
  /** Calls a tool; answers its text. */
  call(tool: string, input?: Record<string, unknown>): Promise<string>;
  /** Hands over where the browser came back to. */
  finish(url: URL): Promise<void>;
  /** What it asked for, in order. */
  walked: string[];
}

type AgentOf = (resource: string, provider: client2.OAuthClientProvider) => Agent;

interface Called {
  content?: unknown;
  [name: string]: unknown;
}

const textOf = ({ content }: Called) => (content as { text?: string }[] | undefined)?.[0]?.text ?? '';

const withSdk1: AgentOf = (resource, provider) => {
  const walked: string[] = [];
  const newTransport = () =>
    new TransportOfSdk1(new URL(resource), {
      authProvider: provider as ProviderOfSdk1,
      fetch: recordingFetch(walked),
    });
  let transport = newTransport();
  return {
    walked,
    async call(tool, input = {}) {
      transport = newTransport();
      const client = new ClientOfSdk1({ name: 'agent', version: '1.0.0' });
      onTestFinished(() => client.close());
      // The class is its own interface only without exactOptionalPropertyTypes.
      await client.connect(transport as unknown as TransportInterfaceOfSdk1);
      return textOf(await client.callTool({ name: tool, arguments: input }));
    },
    finish: (url) => transport.finishAuth(url.searchParams.get('code') ?? ''),
  };
};

const withClient2: AgentOf = (resource, provider) => {
  const walked: string[] = [];
  const newTransport = () =>
    new client2.StreamableHTTPClientTransport(new URL(resource), {
      authProvider: provider,
      fetch: recordingFetch(walked),
    });
  let transport = newTransport();
  return {
    walked,
    async call(tool, input = {}) {
      transport = newTransport();
      const client = new client2.Client({ name: 'agent', version: '1.0.0' });
      onTestFinished(() => client.close());
      await client.connect(transport);
      return textOf(await client.callTool({ name: tool, arguments: input }));
    },
    finish: (url) => transport.finishAuth(url.searchParams),
  };
};

const REDIRECT_URI = 'http://127.0.0.1:53682/callback';

/** What an agent remembers of a server, as those who write one do. */
class AgentMemory implements client2.OAuthClientProvider {
  readonly redirectUrl: string;
  readonly clientMetadata: client2.OAuthClientMetadata;
  readonly clientMetadataUrl?: string;
  /** Where its user was sent. */
  sentTo: URL | undefined;
  readonly kept: {
    tokens?: client2.StoredOAuthTokens;
    client?: client2.StoredOAuthClientInformation;
    verifier?: string;
    discovery?: client2.OAuthDiscoveryState;
  } = {};

  constructor(clientMetadataUrl?: string, redirectUrl = REDIRECT_URI) {
    if (clientMetadataUrl !== undefined) this.clientMetadataUrl = clientMetadataUrl;
    this.redirectUrl = redirectUrl;
    this.clientMetadata = {
      client_name: 'Test agent',
      redirect_uris: [redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    };
  }

  tokens = () => this.kept.tokens;
  clientInformation = () => this.kept.client;
  codeVerifier = () => this.kept.verifier ?? '';
  discoveryState = () => this.kept.discovery;
  saveTokens(tokens: client2.StoredOAuthTokens) {
    this.kept.tokens = tokens;
  }
  saveClientInformation(client: client2.StoredOAuthClientInformation) {
    this.kept.client = client;
  }
  saveCodeVerifier(verifier: string) {
    this.kept.verifier = verifier;
  }
  saveDiscoveryState(discovery: client2.OAuthDiscoveryState) {
    this.kept.discovery = discovery;
  }
  redirectToAuthorization(url: URL) {
    this.sentTo = url;
  }
  invalidateCredentials(what: string) {
    if (what === 'all' || what === 'client') delete this.kept.client;
    if (what === 'all' || what === 'tokens') delete this.kept.tokens;
  }
}

const LIBRARIES = {
  '@modelcontextprotocol/sdk 1': {
    agentWith: withSdk1,
    Provider: ClientCredentialsOfSdk1,
    Unauthorized: UnauthorizedOfSdk1,
  },
  '@modelcontextprotocol/client 2': {
    agentWith: withClient2,
    Provider: client2.ClientCredentialsProvider,
    Unauthorized: client2.UnauthorizedError,
  },
} as const;

/** Signs in as this person, and says yes; answers what was shown, and where the browser is sent back to. */
async function allow({ issuer, person }: Opened, url: URL | undefined, decision = 'allow') {
  const browser = new UserAgent(issuer);
  const shown: string[] = [];
  let page = await browser.get(url?.href ?? '');
  for (let steps = 0; steps < 6; steps++) {
    if (page.location !== null && !page.location.startsWith(issuer))
      return { shown: shown.join(), back: new URL(page.location) };
    shown.push(page.text);
    if (page.location !== null) page = await browser.get(page.location);
    else if (page.text.includes('name="password"')) page = await browser.submit(page, { ...person });
    else page = await browser.submit(page, { decision });
  }
  throw new Error(`Nobody was sent back: ${page.status} ${page.text}`);
}

const DOCUMENT_HOST = 'agent.example';
const DOCUMENT_URL = `https://${DOCUMENT_HOST}/client.json`;

/** The document that an agent's client id is the URL of, by TLS; on another port than 443, which is put in on the way. */
async function serveDocument(): Promise<Pick<Outbound, 'read'>> {
  const certificate = newCertificate([DOCUMENT_HOST]);
  const document = { ...new AgentMemory().clientMetadata, client_id: DOCUMENT_URL };
  const site = createTlsServer(certificate, (_request, response) => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(document));
  }).listen(0, '127.0.0.1');
  await once(site, 'listening');
  const { port } = site.address() as AddressInfo;
  const outbound = createOutbound({
    allowLoopbackHttp: true,
    ca: certificate.cert,
    resolve: () => Promise.resolve([{ address: '127.0.0.1', family: 4 }]),
  });
  onTestFinished(async () => {
    await outbound.close();
    site.close();
    site.closeAllConnections();
  });
  return {
    read: (url, options) => outbound.read(url.replace(DOCUMENT_HOST, `${DOCUMENT_HOST}:${port}`), options),
  };
}

/** A Countersign server for agents with a user, and the MCP server beside it. */
interface Opened {
  issuer: string;
  person: Person;
  administer: Administer;
  resource: string;
}

/** In this process: what port 443 of another host answers can be put in on the way only here. */
async function openWithDocument(): Promise<Opened> {
  const opened = await openTestDeps('sqlite', { startsAt: Date.now() });
  const { deps, url: issuer } = await serveOauth({
    ...opened,
    oauthClients: 'mcp',
    clientDocuments: createClientDocuments(await serveDocument(), opened.now),
  });
  await newUser(opened, 'ada', { withPassword: true });
  const administer: Administer = async (procedure, input) =>
    (await call(deps, opened.adminKey, procedure, input)) as Awaited<ReturnType<Administer>>;
  const resource = await startMcp(issuer, administer, onTestFinished);
  return { issuer, person: { name: 'ada', password: PASSWORD }, administer, resource };
}

const whenDone = whenSuiteDone();
let server: Started;
let resource: string;

/** Calls a procedure, and answers what it does. */
const create: Administer = (path, input) => server.administer(path, input);

beforeAll(async () => {
  const env = { COUNTERSIGN_OAUTH_CLIENTS: 'mcp', COUNTERSIGN_LOG_LEVEL: 'warn' };
  server = await startAuthorizationServer({ env, scopes: [], whenDone });
  resource = await startMcp(server.url, create, whenDone);
}, 60_000);

let people = 0;

/** By `npm start`, with somebody who has no notes yet. */
async function openStarted(): Promise<Opened> {
  people += 1;
  const person = await server.newPerson(`Person ${people}`);
  return { issuer: server.url, person, administer: create, resource };
}

describe.each(Object.entries(LIBRARIES))(
  'an agent with a user, by %s',
  (library, { agentWith, Unauthorized }) => {
    const isSdk1 = library.endsWith('1');
    const toTheBrowser = [
      'POST /mcp 401',
      'GET /.well-known/oauth-protected-resource/mcp 200',
      'GET /.well-known/oauth-authorization-server 200',
    ];
    const aCall = ['POST /mcp 200', 'POST /mcp 202', 'GET /mcp 405', 'POST /mcp 200'];

    it.each([
      ['registers itself', openStarted, undefined],
      ['is known by its document', openWithDocument, DOCUMENT_URL],
    ])('%s, has its user allow it, calls a tool, and refreshes its token', async (_, open, documentUrl) => {
      const opened = await open();
      const { issuer, administer, resource } = opened;
      const memory = new AgentMemory(documentUrl);
      const agent = agentWith(resource, memory);
      await expect(agent.call('list_notes')).rejects.toThrow(Unauthorized);
      expect(agent.walked).toEqual([...toTheBrowser, ...(documentUrl ? [] : ['POST /oauth/register 201'])]);
      expect(memory.sentTo?.searchParams.get('resource')).toBe(resource);

      const { shown, back } = await allow(opened, memory.sentTo);
      for (const told of ['Test agent', '127.0.0.1', 'Read your notes', 'on your own device', resource])
        expect(shown).toContain(told);
      expect(shown).not.toContain('Add notes to yours');
      expect(back.searchParams.get('iss')).toBe(issuer);

      agent.walked.length = 0;
      await agent.finish(back);
      expect(agent.walked).toEqual(['POST /oauth/token 200']);
      expect(await agent.call('list_notes')).toBe('No notes');
      expect(agent.walked.slice(1)).toEqual(aCall);
      const before = memory.kept.tokens;
      expect(before?.scope?.split(' ')).toContain('notes:read');

      await administer('oauthTokens.revokeByValue', { value: before?.access_token });
      agent.walked.length = 0;
      expect(await agent.call('list_notes')).toBe('No notes');
      expect(agent.walked).toEqual(['POST /mcp 401', 'POST /oauth/token 200', ...aCall]);
      expect(memory.kept.tokens?.refresh_token).not.toBe(before?.refresh_token);

      const { applicationId, subject } = await administer('oauthTokens.verify', {
        credential: memory.kept.tokens?.access_token,
        resource,
      });
      await administer('oauthGrants.withdraw', { subject, applicationId });
      await expect(agent.call('list_notes')).rejects.toThrow(Unauthorized);
      expect(memory.kept.tokens).toBeUndefined();
    });

    it('asks its user again for the tool that takes more', async () => {
      const opened = await openStarted();
      const { resource } = opened;
      const memory = new AgentMemory();
      const agent = agentWith(resource, memory);
      await expect(agent.call('list_notes')).rejects.toThrow(Unauthorized);
      await agent.finish((await allow(opened, memory.sentTo)).back);
      if (isSdk1) {
        // It refreshes instead, which widens nothing, and says so; without a refresh token it asks.
        await expect(agent.call('add_note', { text: 'milk' })).rejects.toThrow('403 after trying upscoping');
        delete memory.kept.tokens?.refresh_token;
      }
      await expect(agent.call('add_note', { text: 'milk' })).rejects.toThrow(Unauthorized);
      const { shown, back } = await allow(opened, memory.sentTo);
      expect(shown).toContain('Add notes to yours');
      await agent.finish(back);
      expect(await agent.call('add_note', { text: 'milk' })).toBe('There are 1 notes');
      expect(await agent.call('list_notes')).toBe('milk');
    });

    it('gets no refresh token where it registered for none', async () => {
      const opened = await openStarted();
      const { resource } = opened;
      const memory = new AgentMemory();
      memory.clientMetadata.grant_types = ['authorization_code'];
      const agent = agentWith(resource, memory);
      await expect(agent.call('list_notes')).rejects.toThrow(Unauthorized);
      const { shown, back } = await allow(opened, memory.sentTo);
      expect(shown).not.toContain('Stay connected');
      await agent.finish(back);
      expect(memory.kept.tokens?.refresh_token).toBeUndefined();
      expect(await agent.call('list_notes')).toBe('No notes');
    });

    it('is told that its user did not allow it', async () => {
      const opened = await openStarted();
      const { resource } = opened;
      const memory = new AgentMemory();
      await expect(agentWith(resource, memory).call('list_notes')).rejects.toThrow(Unauthorized);
      const { back } = await allow(opened, memory.sentTo, 'deny');
      expect(Object.fromEntries(back.searchParams)).toMatchObject({
        error: 'access_denied',
        iss: server.url,
      });
      expect(back.searchParams.get('code')).toBeNull();
    });
  },
);

const newApplication = (name: string, more: object = {}) =>
  create('oauthApplications.create', {
    name,
    grantTypes: ['client_credentials'],
    scopes: ['notes:read', 'notes:write'],
    ...more,
  });

describe.each(Object.entries(LIBRARIES))('client credentials by %s', (library, { agentWith, Provider }) => {
  const providerOf = ({ clientId = '', secret = '' }, expectedIssuer = server.url) =>
    new Provider({ clientId, clientSecret: secret, expectedIssuer }) as client2.OAuthClientProvider;

  it.each(['opaque', 'jwt'])(
    'an application is led from a 401 to its token (%s), and calls a tool',
    async (format) => {
      const application = await newApplication(`${library} ${format}`, { accessTokenFormat: format });
      const agent = agentWith(resource, providerOf(application));
      expect(await agent.call('list_notes')).toBe('No notes');
      expect(agent.walked).toEqual([
        'POST /mcp 401',
        'GET /.well-known/oauth-protected-resource/mcp 200',
        'GET /.well-known/oauth-authorization-server 200',
        'POST /oauth/token 200',
        'POST /mcp 200',
        'POST /mcp 202',
        'GET /mcp 405',
        'POST /mcp 200',
      ]);
    },
  );

  it('its credentials go to no other server than theirs', async () => {
    const agent = agentWith(
      resource,
      providerOf(await newApplication(`${library} elsewhere`), 'https://other.example.com'),
    );
    await expect(agent.call('list_notes')).rejects.toThrow('https://other.example.com');
    expect(agent.walked).not.toContainEqual(expect.stringContaining('/oauth/token'));
  });

  it('a wrong secret is told as such', async () => {
    const { clientId } = await newApplication(`${library} wrong`);
    await expect(
      agentWith(resource, providerOf({ clientId, secret: 'oas_wrong' })).call('list_notes'),
    ).rejects.toThrow(/Wanted the id of a client with its secret/);
  });
});

describe('the gate', () => {
  const post = (token: string | null, message: unknown, headers: Record<string, string> = {}) =>
    send(resource, {
      method: 'POST',
      headers: {
        ...(token !== null && { authorization: `Bearer ${token}` }),
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        ...headers,
      },
      body: typeof message === 'string' ? message : JSON.stringify(message),
    });
  const calling = (name: string, input: object = {}) => ({
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/call',
    params: { name, arguments: input },
  });
  const tokenFor = async (more: object, parameters: Record<string, string> = { resource }) => {
    const { clientId = '', secret = '' } = await newApplication('gate', more);
    const { body } = await send(`${server.url}/oauth/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        client_id: clientId,
        client_secret: secret,
        ...parameters,
      }),
    });
    return body.access_token as string;
  };
  const metadata = () => resource.replace('/mcp', '/.well-known/oauth-protected-resource/mcp');

  it('says where tokens are to be had, and what they begin with', async () => {
    const { status, headers } = await post(null, calling('list_notes'));
    expect(status).toBe(401);
    expect(headers.get('www-authenticate')).toBe(
      `Bearer realm="countersign", scope="notes:read", resource_metadata="${metadata()}"`,
    );
    expect(await send(metadata())).toMatchObject({
      status: 200,
      body: {
        resource,
        authorization_servers: [server.url],
        scopes_supported: ['notes:read', 'notes:write'],
      },
    });
  });

  it.each(['opaque', 'jwt'])(
    'refuses a token for another resource, for none, and one that is none (%s)',
    async (accessTokenFormat) => {
      const machine = await create('machines.create', { name: `machine ${accessTokenFormat}` });
      const minted = await server.call('m2mTokens.create', { format: accessTokenFormat }, machine['secret']);
      const key = await create('apiKeys.create', {
        name: accessTokenFormat,
        subject: 'user_1',
        scopes: ['notes:read'],
      });
      for (const token of [
        await tokenFor({ accessTokenFormat }, { resource: 'https://other.example.com/mcp' }),
        await tokenFor({ accessTokenFormat }, { resource: `${resource}/below` }),
        await tokenFor({ accessTokenFormat }, {}),
        minted.body.result.data.token,
        key['secret'],
        'oat_none',
      ])
        expect(await post(token, calling('list_notes'))).toMatchObject({ status: 401 });
      expect(await post(await tokenFor({ accessTokenFormat }), calling('list_notes'))).toMatchObject({
        status: 200,
      });
    },
  );

  it('wants more for the tool that takes more, and says all that it takes', async () => {
    const token = await tokenFor({ scopes: ['notes:read'] });
    expect((await post(token, calling('list_notes'))).status).toBe(200);
    const refused = await post(token, calling('add_note', { text: 'milk' }));
    expect(refused.status).toBe(403);
    expect(refused.headers.get('www-authenticate')).toBe(
      `Bearer realm="countersign", error="insufficient_scope", error_description="The credential lacks a scope that this needs", scope="notes:read notes:write", resource_metadata="${metadata()}"`,
    );
    // In no other way either.
    const batch = [calling('list_notes'), calling('add_note', { text: 'milk' })];
    expect((await post(token, batch)).status).toBe(400);
    expect(
      (await post(token, { ...calling('add_note', { text: 'milk' }), method: 'tools/Call' })).body,
    ).toMatchObject({
      error: { code: -32601 },
    });
    expect((await post(token, calling('list_notes'))).body.result.content).toEqual([
      { type: 'text', text: 'No notes' },
    ]);
  });

  it('keeps notes apart by whose they are', async () => {
    const [one, other] = [await tokenFor({}), await tokenFor({})];
    expect((await post(one, calling('add_note', { text: 'milk' }))).body.result.content).toEqual([
      { type: 'text', text: 'There are 1 notes' },
    ]);
    expect((await post(other, calling('list_notes'))).body.result.content).toEqual([
      { type: 'text', text: 'No notes' },
    ]);
  });

  it('hears of a revocation at the next call', async () => {
    const token = await tokenFor({});
    expect((await post(token, calling('list_notes'))).status).toBe(200);
    await create('oauthTokens.revokeByValue', { value: token });
    expect((await post(token, calling('list_notes'))).status).toBe(401);
  });

  it('answers what is no message, what comes for another host, and what wants a session', async () => {
    const token = await tokenFor({});
    expect(await post(token, '{"jsonrpc"')).toMatchObject({ status: 400, body: { error: { code: -32700 } } });
    expect(await post(token, 'x'.repeat(200_000))).toMatchObject({ status: 413 });
    expect((await send(resource)).status).toBe(405);
    expect(await statusWithHost('rebound.example.com')).toBe(403);
  });
});

/** `fetch` does not let a caller choose the host that it names. */
function statusWithHost(host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request(resource, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on('error', reject).end();
  });
}

describeInBrowser('an agent, from an invitation of its user to a tool that is called,', (open) => {
  it('has its user sign in and say yes on pages that are accessible, and is answered on its own device', async () => {
    const { link = '' } = await create('users.invite', { name: 'Grace Hopper' });
    const { page, requests, complaints } = await open();
    await page.goto(link);
    await page.getByLabel('Name to sign in with').fill('grace');
    for (const label of ['Password', 'The same password again'])
      await page.getByLabel(label, { exact: true }).fill(PASSWORD);
    await page.getByRole('button', { name: 'Make the account' }).click();
    await page.getByRole('heading', { name: 'Done' }).waitFor();

    const device = await listen((_request, response) => response.end('You can close this window'));
    const memory = new AgentMemory(undefined, `${device.url}/callback`);
    const agent = withClient2(resource, memory);
    await expect(agent.call('list_notes')).rejects.toThrow(client2.UnauthorizedError);

    await page.goto(memory.sentTo?.href ?? '');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await expectAccessible(page);
    await page.getByLabel('Name').fill('grace');
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in' }).click();

    await page.getByRole('heading', { name: 'Allow Test agent?' }).waitFor();
    await page.getByText('wants to act for you, Grace Hopper').waitFor();
    await page.getByText('Read your notes').waitFor();
    await page.getByText('on your own device').waitFor();
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Allow', exact: true }).click();
    await page.getByText('You can close this window').waitFor();

    await agent.finish(new URL(page.url()));
    expect(await agent.call('list_notes')).toBe('No notes');
    const known = [server.url, device.url];
    expect(requests.filter((each) => !known.includes(new URL(each).origin))).toEqual([]);
    expect(complaints).toEqual([]);
  });
});
