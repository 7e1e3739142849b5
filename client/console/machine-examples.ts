/** The code that “show me the code” shows, per language. Secrets are read from the environment, and never shown. */

/** One machine calling another. */
export interface Call {
  /** Of this server. */
  url: string;
  machineName: string;
  /** The id of the machine that is called. */
  audience: string;
  /** What tokens for it may be asked for with. */
  scopes: readonly string[];
}

interface Language {
  name: string;
  /** How the machine gets a token. */
  calling: (call: Call) => string;
  /** How who is called asks whether a token is valid. */
  called: (call: Call) => string;
}

/** A list of strings, as JavaScript, Python and JSON write one. */
const listOf = (words: readonly string[]) => `[${quoted(words)}]`;
const quoted = (words: readonly string[]) => words.map((word) => JSON.stringify(word)).join(', ');

/** A token's request over REST; Python would write it the same. */
const tokenRequest = ({ audience, scopes }: Call) =>
  JSON.stringify({ audience: [audience], ...(scopes.length > 0 && { custom_scopes: scopes }) });

const typescript: Language = {
  name: 'TypeScript',
  calling: ({ url, audience, scopes }) => `import { createCountersign } from 'countersign';
import { createM2mFetch, createM2mTokenSource } from 'countersign/m2m';

const countersign = createCountersign({
  url: '${url}',
  machineSecretKey: process.env.COUNTERSIGN_MACHINE_SECRET_KEY,
});

export const call = createM2mFetch({
  tokens: createM2mTokenSource({ countersign }),
  origins: ['https://ledger.example.com'], // where the token may be sent
  audience: ['${audience}'],${scopes.length > 0 ? `\n  scopes: ${listOf(scopes)},` : ''}
});
`,
  called: ({ url, scopes }) => `import { createCountersign } from 'countersign';

const countersign = createCountersign({
  url: '${url}',
  machineSecretKey: process.env.COUNTERSIGN_MACHINE_SECRET_KEY,
});

export const check = (token: string) =>
  countersign.verify({ credential: token, kinds: ['m2m_token']${scopes.length > 0 ? `, scopes: ${listOf(scopes)}` : ''} });
`,
};

/** Within single quotes of a shell, where JSON may write a single quote otherwise. */
const inSingleQuotes = (json: string) => `'${json.replaceAll("'", '\\u0027')}'`;

const curl: Language = {
  name: 'curl',
  calling: (call) => `curl -s ${call.url}/v1/m2m_tokens \\
  -H "Authorization: Bearer $COUNTERSIGN_MACHINE_SECRET_KEY" \\
  -H 'Content-Type: application/json' \\
  -d ${inSingleQuotes(tokenRequest(call))}
`,
  called: ({ url, scopes }) => `curl -s ${url}/v1/verify \\
  -H "Authorization: Bearer $COUNTERSIGN_MACHINE_SECRET_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '{"credential":"'"$TOKEN"'",'${inSingleQuotes(
    `"kinds":["m2m_token"]${scopes.length > 0 ? `,"scopes":${listOf(scopes)}` : ''}}`,
  )}
`,
};

const pythonAsk = (path: string, url: string) => `import json
import os
import sys
import urllib.request


def ask(body):
    request = urllib.request.Request(
        "${url}${path}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": "Bearer " + os.environ["COUNTERSIGN_MACHINE_SECRET_KEY"],
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)

`;

const python: Language = {
  name: 'Python',
  calling: (call) => `${pythonAsk('/v1/m2m_tokens', call.url)}
print(ask(${tokenRequest(call)})["token"])
`,
  called: ({ url, scopes }) => `${pythonAsk('/v1/verify', url)}
token = sys.stdin.read().strip()
print(ask({"credential": token, "kinds": ["m2m_token"]${scopes.length > 0 ? `, "scopes": ${listOf(scopes)}` : ''}})["valid"])
`,
};

interface GoParts {
  /** Beside those that all need. */
  imports: readonly string[];
  path: string;
  url: string;
  /** What is sent, as the inside of a map. */
  body: string;
  /** Of the answer, the field that is read. */
  field: string;
}

const goProgram = ({ imports, path, url, body, field }: GoParts) => `package main

import (
${[...imports, 'bytes', 'encoding/json', 'fmt', 'net/http', 'os']
  .sort()
  .map((name) => `\t"${name}"`)
  .join('\n')}
)

func main() {${imports.includes('io') ? '\n\ttoken, _ := io.ReadAll(os.Stdin)' : ''}
	body, _ := json.Marshal(map[string]any{${body}})
	request, _ := http.NewRequest("POST", "${url}${path}", bytes.NewReader(body))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("COUNTERSIGN_MACHINE_SECRET_KEY"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		panic(err)
	}
	fmt.Println(answer["${field}"])
}
`;

const goList = (words: readonly string[]) => `[]string{${quoted(words)}}`;

const go: Language = {
  name: 'Go',
  calling: ({ url, audience, scopes }) =>
    goProgram({
      imports: [],
      path: '/v1/m2m_tokens',
      url,
      body: `"audience": ${goList([audience])}${scopes.length > 0 ? `, "custom_scopes": ${goList(scopes)}` : ''}`,
      field: 'token',
    }),
  called: ({ url, scopes }) =>
    goProgram({
      imports: ['io', 'strings'],
      path: '/v1/verify',
      url,
      body: `"credential": strings.TrimSpace(string(token)), "kinds": ${goList(['m2m_token'])}${scopes.length > 0 ? `, "scopes": ${goList(scopes)}` : ''}`,
      field: 'valid',
    }),
};

export const LANGUAGES = [typescript, curl, python, go] as const;
