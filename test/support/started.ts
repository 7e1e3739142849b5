/** The server, started as people start it, with a user of its own who signs in and allows on its pages. */
import { randomBytes } from 'node:crypto';
import type { TestApplication } from './authorization-server.ts';
import { freshFolder, type WhenDone } from './deps.ts';
import { openUserAgent, type Page, type UserAgent } from './plain-browser.ts';
import { type Answer, type RunningServer, send, startServer } from './server.ts';
import { type Site, startAt } from './site.ts';
import { newPkce } from './user-agent.ts';

export const CALLBACK = 'http://127.0.0.1:9/callback';

/** What somebody signs in with. */
export interface Person {
  name: string;
  password: string;
}

export interface Started extends RunningServer, Person {
  /** Somebody else, invited under this name, with a password. */
  newPerson(name: string): Promise<Person>;
  application(input?: Record<string, unknown>): Promise<TestApplication>;
  /** Calls a procedure as an administrator, and answers what it does. */
  // biome-ignore lint/suspicious/noExplicitAny: procedures answer every shape
  administer(path: string, input?: unknown): Promise<any>;
  browser(): UserAgent;
  /** Opens an authorization request, signs in where asked to and allows; ends where the application is. */
  allow(url: string | URL, agent?: UserAgent): Promise<Page>;
}

interface Options {
  env?: NodeJS.ProcessEnv;
  /** The scopes that are defined. */
  scopes?: readonly string[];
  whenDone: WhenDone;
}

/** A server of its own, by `npm start`. Where others check passwords, nobody is invited. */
export async function startAuthorizationServer({ env = {}, scopes, whenDone }: Options): Promise<Started> {
  const server = await startServer(freshFolder(whenDone), env, { whenDone, byNpm: 'once built' });
  const isLocal = (env['COUNTERSIGN_SIGN_IN'] ?? 'local') === 'local';
  return withPerson(server, { isLocal, ...(scopes && { scopes }) });
}

/** The same, as one of the servers of a site; `as` is another of them, whose user and administrator it has. */
export async function startAuthorizationServerAt(
  site: Site,
  i: number,
  { whenDone, as }: { whenDone: WhenDone; as?: Started },
): Promise<Started> {
  return withPerson(await startAt(site, i, { whenDone }), as && { as });
}

interface Setting {
  as?: Started;
  isLocal?: boolean;
  scopes?: readonly string[];
}

async function withPerson(
  server: RunningServer,
  { as, isLocal = true, scopes = ['notes:read', 'notes:write'] }: Setting = {},
): Promise<Started> {
  const adminKey = as?.adminKey ?? server.adminKey;
  const administer = async (path: string, input: unknown = {}) => {
    const { status, body } = await server.call(path, input, adminKey);
    if (status !== 200) throw new Error(`Cannot call ${path}: ${status} ${JSON.stringify(body)}`);
    return body.result.data;
  };
  const newPerson = async (name: string): Promise<Person> => {
    const person = {
      name: name.toLowerCase().replaceAll(' ', '.'),
      password: randomBytes(18).toString('base64url'),
    };
    const { link } = await administer('users.invite', { name });
    const agent = openUserAgent(server.url);
    const { pathname, search } = new URL(link);
    await fillIn(agent, await agent.open(server.url + pathname + search), person);
    return person;
  };
  const nobody = { name: '', password: '' };
  const person = as ?? (isLocal ? await newPerson('Ada Lovelace') : nobody);
  if (!as)
    for (const name of scopes) await administer('oauthScopes.create', { name, description: `May ${name}` });
  return {
    ...server,
    adminKey,
    name: person.name,
    password: person.password,
    newPerson,
    administer,
    browser: () => openUserAgent(server.url),
    async application(input = {}) {
      const { id, clientId, secret } = await administer('oauthApplications.create', {
        name: 'Notebook',
        redirectUris: [CALLBACK],
        scopes: ['openid', 'profile', 'email', 'offline_access', 'notes:read', 'notes:write'],
        ...input,
      });
      return { id, clientId, secret: secret ?? '' };
    },
    async allow(url, agent = openUserAgent(server.url)) {
      let page = await agent.open(url);
      for (let pages = 0; page.left === null && page.forms.length > 0 && pages < 4; pages++)
        page = await fillIn(agent, page, person);
      return page;
    },
  };
}

/** A code that the user allowed an application, and what it is redeemed with but for who asks. */
export async function codeFor(
  server: Started,
  { clientId }: TestApplication,
  agent?: UserAgent,
): Promise<{ form: Record<string, string> }> {
  const { verifier, challenge } = newPkce();
  const query = new URLSearchParams({
    client_id: clientId,
    redirect_uri: CALLBACK,
    response_type: 'code',
    scope: 'openid offline_access',
    code_challenge: challenge,
    code_challenge_method: 'S256',
  });
  const back = cameBack(await server.allow(`${server.url}/oauth/authorize?${query}`, agent));
  return {
    form: {
      grant_type: 'authorization_code',
      code: back.searchParams.get('code') ?? '',
      redirect_uri: CALLBACK,
      code_verifier: verifier,
    },
  };
}

export const formTo = (url: string, path: string, form: Record<string, string>): Promise<Answer> =>
  send(url + path, { method: 'POST', body: new URLSearchParams(form) });

/** Fills in who one is where a page asks for that; allows where it asks for that. */
export function fillIn(agent: UserAgent, page: Page, person: Person): Promise<Page> {
  const form = page.forms.find(({ inputs }) => inputs.some(({ type }) => type === 'password'));
  if (!form) return agent.submit(page, {}, page.left === null && isAsking(page) ? /allow/i : undefined);
  const filled = form.inputs.flatMap(({ name, type }) => {
    if (type === 'password') return [[name, person.password]];
    return ['text', 'email'].includes(type) ? [[name, person.name]] : [];
  });
  return agent.submit({ ...page, forms: [form] }, Object.fromEntries(filled));
}

const isAsking = ({ forms }: Page) =>
  forms.some(({ buttons }) => buttons.some(({ text, value }) => /allow/i.test(text + value)));

/** Where the application is sent back to, with what it is told; what was posted is told by the query too. */
export function cameBack({ left, status, text }: Page): URL {
  if (!left) throw new Error(`Wanted to be back at the application, found ${status} ${text}`);
  const url = new URL(left.url);
  for (const [name, value] of left.form ?? []) url.searchParams.set(name, value);
  return url;
}

/** A site whose public URL is where its first server listens: people are led to it. */
export function atFirst(site: Site): Site {
  const url = `http://127.0.0.1:${site.settings[0]?.['PORT']}`;
  for (const settings of site.settings) settings['COUNTERSIGN_PUBLIC_URL'] = url;
  return site;
}
