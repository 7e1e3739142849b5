/** What an authorization server is asked, and ours made ready for it. */
import { createHash } from 'node:crypto';
import { type CodeFlow, codeIn } from './code-flows.ts';
import { CREDENTIALS } from './floors/floor.ts';
import { Connection } from './load.ts';
import type { MeasuredServer } from './processes.ts';
import { formOf, type PostRequest, toBuffer, toPage } from './requests.ts';

export interface OauthRequests {
  /** For an opaque token by client credentials, with two scopes. */
  opaque: PostRequest;
  /** The same for a JWT that is signed with ES256. */
  jwt: PostRequest;
  /** Of such opaque tokens, each its own. */
  introspections: PostRequest[];
  /** To an opaque access token, a refresh token, and an ID token that is signed with ES256. */
  flow: CodeFlow;
}

/** Users are those of a host application, which is quickest to say who they are. */
export const OAUTH_ENV = {
  COUNTERSIGN_SIGNING_ALG: 'ES256',
  // One application asks for all that is measured.
  COUNTERSIGN_OAUTH_TOKENS_PER_MINUTE: '100000000',
  COUNTERSIGN_SIGN_IN: 'handoff',
  COUNTERSIGN_HANDOFF_URL: 'https://host.example.com/sign-in',
};

const REDIRECT_URI = 'https://app.example.com/callback';
const SCOPES = ['read', 'write'];
/** The host application is asked before the measurement, not in it. */
const REMEMBER_SECONDS = 86_400;
const FLOW_SCOPES = ['openid', 'offline_access', ...SCOPES];

export async function prepareOauth(server: MeasuredServer): Promise<OauthRequests> {
  for (const name of SCOPES) await server.admin.oauthScopes.create({ name, description: `May ${name}` });
  const client = await createClient(server, 'opaque');
  return {
    opaque: clientCredentials(client),
    jwt: clientCredentials(await createClient(server, 'jwt')),
    introspections: await issueAll(server, client),
    flow: await consentedFlow(server, client),
  };
}

interface Client {
  id: string;
  secret: string;
}

async function createClient({ admin }: MeasuredServer, accessTokenFormat: 'opaque' | 'jwt'): Promise<Client> {
  const { clientId, secret = '' } = await admin.oauthApplications.create({
    name: accessTokenFormat,
    redirectUris: [REDIRECT_URI],
    grantTypes: ['authorization_code', 'refresh_token', 'client_credentials'],
    scopes: FLOW_SCOPES,
    accessTokenFormat,
  });
  return { id: clientId, secret };
}

const clientCredentials = (client: Client) =>
  formOf('/oauth/token', client, { grant_type: 'client_credentials', scope: SCOPES.join(' ') });

/** Issues the tokens; answers the requests that introspect one each. */
async function issueAll(server: MeasuredServer, client: Client): Promise<PostRequest[]> {
  const request = toBuffer(clientCredentials(client));
  const connection = await Connection.open(server.port);
  const introspections: PostRequest[] = [];
  while (introspections.length < CREDENTIALS) {
    const token = /"access_token":"([^"]+)"/.exec(`${await connection.exchange(request)}`)?.[1];
    if (token === undefined) throw new Error('Wanted an access token');
    introspections.push(formOf('/oauth/introspect', client, { token }));
  }
  connection.close();
  return introspections;
}

/** More than browsers elsewhere: a user is given 30 codes for one application in a minute, and no more. */
const USERS = 500;

const VERIFIER = 'a-code-verifier-of-a-measurement-which-protects-nothing';

async function consentedFlow(server: MeasuredServer, client: Client): Promise<CodeFlow> {
  const authorizePath = `/oauth/authorize?${new URLSearchParams({
    client_id: client.id,
    response_type: 'code',
    redirect_uri: REDIRECT_URI,
    scope: FLOW_SCOPES.join(' '),
    state: 'a-state-of-a-measurement',
    nonce: 'a-nonce-of-a-measurement',
    code_challenge: createHash('sha256').update(VERIFIER).digest('base64url'),
    code_challenge_method: 'S256',
  })}`;
  const cookies: string[] = [];
  while (cookies.length < USERS) cookies.push(await signIn(server, authorizePath, `user_${cookies.length}`));
  return {
    authorizePath,
    cookies,
    token: formOf('/oauth/token', client, {
      grant_type: 'authorization_code',
      redirect_uri: REDIRECT_URI,
      code_verifier: VERIFIER,
    }),
  };
}

/** A browser's first authorization, by way of the host application, which says who it is and that they consent. */
async function signIn(
  { port, admin }: MeasuredServer,
  authorizePath: string,
  subject: string,
): Promise<string> {
  const connection = await Connection.open(port);
  const cookies: string[] = [];
  async function follow(path: string): Promise<Buffer> {
    const answer = await connection.exchange(toPage(path, cookies.join('; ')), 3);
    for (const [, pair = ''] of answer.toString('latin1').matchAll(/\r\nset-cookie: ([^;\r]+)/gi))
      cookies.push(pair);
    return answer;
  }
  const handedOff = `${await follow(authorizePath)}`;
  const id = /\r\nlocation: \S*[?&]interaction=(int_\w+)/i.exec(handedOff)?.[1];
  if (id === undefined) throw new Error(`Wanted a hand-off, found '${handedOff}'`);
  const { resumeUrl } = await admin.interactions.complete({
    id,
    subject,
    rememberSeconds: REMEMBER_SECONDS,
    consent: { scopes: FLOW_SCOPES },
  });
  const { pathname, search } = new URL(resumeUrl);
  codeIn(await follow(pathname + search));
  connection.close();
  return cookies.join('; ');
}
