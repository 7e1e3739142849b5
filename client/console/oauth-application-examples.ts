/** The code that an OAuth application's page shows, per language. Secrets are read from the environment, and never shown. */

/** An application that is to get tokens. */
export interface Use {
  /** Of this server, which is the issuer. */
  url: string;
  clientId: string;
  /** Without a secret. */
  public: boolean;
  redirectUri: string;
  scopes: readonly string[];
}

interface Language {
  name: string;
  /** How a user is sent to allow it, and what is done when they are back. */
  forUsers: (use: Use) => string;
  /** How it gets a token for itself. */
  forItself: (use: Use) => string;
  /** How an API asks whether a token is valid. */
  checking: (use: Use) => string;
}

const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

const isInsecure = ({ url }: Use) => url.startsWith('http:');

const scopeIn = ({ scopes }: Use) => quoted(scopes.join(' '));

/** It finds out all else by itself. Over http it is told that it may, which is for this machine alone. */
function discovered(use: Use): string {
  const parts = [`new URL(${quoted(use.url)})`, quoted(use.clientId)];
  if (!use.public) parts.push('process.env.OAUTH_CLIENT_SECRET');
  else parts.push('undefined', 'oauth.None()');
  if (isInsecure(use)) {
    if (!use.public) parts.push('undefined');
    parts.push('{ execute: [oauth.allowInsecureRequests] }');
  }
  return `import * as oauth from 'openid-client';

const server = await oauth.discovery(
${parts.map((part) => `  ${part},`).join('\n')}
);
`;
}

const typescript: Language = {
  name: 'TypeScript',
  forUsers: (use) => `${discovered(use)}
/** Where to send the user; the rest is kept in their session until they are back. */
export async function begin() {
  const pkceCodeVerifier = oauth.randomPKCECodeVerifier();
  const expectedState = oauth.randomState();
  const url = oauth.buildAuthorizationUrl(server, {
    redirect_uri: ${quoted(use.redirectUri)},${use.scopes.length > 0 ? `\n    scope: ${scopeIn(use)},` : ''}
    state: expectedState,
    code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  });
  return { url, kept: { pkceCodeVerifier, expectedState } };
}

/** \`cameBackTo\` is the whole URL, with what stands after the question mark. */
export const finish = (cameBackTo: URL, kept: oauth.AuthorizationCodeGrantChecks) =>
  oauth.authorizationCodeGrant(server, cameBackTo, kept);
`,
  forItself: (use) => `${discovered(use)}
const { access_token } = await oauth.clientCredentialsGrant(server${use.scopes.length > 0 ? `, { scope: ${scopeIn(use)} }` : ''});
console.log(access_token);
`,
  checking: ({ url, scopes }) => `import express from 'express';
import { createCountersign } from 'countersign';
import { clientVerifier, protect } from 'countersign/express';

const countersign = createCountersign({
  url: ${quoted(url)},
  secretKey: process.env.COUNTERSIGN_SECRET_KEY, // of the role verify
});
const allowed = protect({
  verifier: clientVerifier(countersign),
  kinds: ['oauth_token'],
  scopes: [${scopes.map(quoted).join(', ')}],
});

export const app = express();
app.get('/invoices', allowed, (request, response) => {
  response.json({ of: allowed.authOf(request).subject });
});
`,
};

/** Within single quotes of a shell. */
const inSingleQuotes = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const proofInShell = (use: Use) =>
  use.public
    ? `-d client_id=${inSingleQuotes(use.clientId)}`
    : `-u ${inSingleQuotes(use.clientId)}:"$OAUTH_CLIENT_SECRET"`;

function authorizationUrl({ url, clientId, redirectUri, scopes }: Use): string {
  const asked = new URLSearchParams({
    response_type: 'code',
    client_id: clientId,
    redirect_uri: redirectUri,
    ...(scopes.length > 0 && { scope: scopes.join(' ') }),
    code_challenge_method: 'S256',
  });
  return `${url}/oauth/authorize?${asked}`;
}

const curl: Language = {
  name: 'curl',
  forUsers: (use) => `VERIFIER=$(openssl rand -hex 32)
CHALLENGE=$(printf %s "$VERIFIER" | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '=')
echo ${inSingleQuotes(`${authorizationUrl(use)}&code_challenge=`)}"$CHALLENGE"

# Open what it printed, allow it, and copy the code from the address that you end at
read -r CODE
curl -s ${use.url}/oauth/token ${proofInShell(use)} \\
  -d grant_type=authorization_code \\
  --data-urlencode code="$CODE" \\
  --data-urlencode redirect_uri=${inSingleQuotes(use.redirectUri)} \\
  -d code_verifier="$VERIFIER"
`,
  forItself: (use) => `curl -s ${use.url}/oauth/token ${proofInShell(use)} \\
  -d grant_type=client_credentials${
    use.scopes.length > 0 ? ` \\\n  --data-urlencode scope=${inSingleQuotes(use.scopes.join(' '))}` : ''
  }
`,
  checking: ({ url, scopes }) => `curl -s ${url}/v1/verify \\
  -H "Authorization: Bearer $COUNTERSIGN_SECRET_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '{"credential":"'"$TOKEN"'",'${inSingleQuotes(`"kinds":["oauth_token"],"scopes":${JSON.stringify(scopes)}}`)}
`,
};

const inPython = (text: string) => JSON.stringify(text);

/** `more` are further arguments of the session. */
function pythonSession(use: Use, more: readonly string[]): string {
  const asked = use.scopes.length > 0 ? [`scope=${inPython(use.scopes.join(' '))}`] : [];
  const proof = use.public ? 'token_endpoint_auth_method="none"' : 'os.environ["OAUTH_CLIENT_SECRET"]';
  return `import os

from authlib.integrations.requests_client import OAuth2Session
${isInsecure(use) ? '\nos.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # over http, on this machine alone\n' : ''}
client = OAuth2Session(
${[inPython(use.clientId), proof, ...asked, ...more].map((part) => `    ${part},`).join('\n')}
)
`;
}

const python: Language = {
  name: 'Python',
  forUsers: (use) => `${pythonSession(use, [
    `redirect_uri=${inPython(use.redirectUri)}`,
    'code_challenge_method="S256"',
  ])}
verifier = os.urandom(32).hex()
url, state = client.create_authorization_url(${inPython(`${use.url}/oauth/authorize`)}, code_verifier=verifier)
print(url)
token = client.fetch_token(
    ${inPython(`${use.url}/oauth/token`)},
    authorization_response=input("The address that you ended at: "),
    state=state,
    code_verifier=verifier,
)
print(token["access_token"])
`,
  forItself: (use) => `${pythonSession(use, [])}
token = client.fetch_token(${inPython(`${use.url}/oauth/token`)}, grant_type="client_credentials")
print(token["access_token"])
`,
  checking: ({ url, scopes }) => `import json
import os
import sys
import urllib.request

request = urllib.request.Request(
    ${inPython(`${url}/v1/verify`)},
    data=json.dumps(
        {"credential": sys.stdin.read().strip(), "kinds": ["oauth_token"], "scopes": ${JSON.stringify(scopes)}}
    ).encode(),
    headers={
        "Authorization": "Bearer " + os.environ["COUNTERSIGN_SECRET_KEY"],
        "Content-Type": "application/json",
    },
)
with urllib.request.urlopen(request, timeout=10) as response:
    print(json.load(response)["valid"])
`,
};

export const LANGUAGES = [typescript, curl, python] as const;
