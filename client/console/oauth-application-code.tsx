/** “Show me the code”: how an OAuth application gets a token, and how an API checks it, filled in. */
import { Code, Stack, Tabs, Text, Title } from '@mantine/core';
import { CodeExample } from './code-example.tsx';
import { Facts } from './facts.tsx';
import { LANGUAGES, type Use } from './oauth-application-examples.ts';
import type { OauthApplication } from './oauth-application-state.tsx';

export function OauthApplicationCode({ application }: { application: OauthApplication }) {
  const { clientId, grantTypes, redirectUris, scopes, defaultScopes } = application;
  const use: Use = {
    url: location.origin,
    clientId,
    public: application.public,
    redirectUri: redirectUris[0] ?? '',
    scopes: defaultScopes ?? scopes,
  };
  return (
    <Stack>
      <Title order={3} size="h4">
        Show me the code
      </Title>
      <Text size="sm">A library that is told the issuer finds all else by itself.</Text>
      <Facts
        facts={{
          Issuer: <Code>{use.url}</Code>,
          Metadata: <Code>{use.url}/.well-known/oauth-authorization-server</Code>,
          Authorization: <Code>{use.url}/oauth/authorize</Code>,
          Token: <Code>{use.url}/oauth/token</Code>,
        }}
      />
      <Tabs defaultValue={LANGUAGES[0].name} keepMounted={false}>
        <Tabs.List mb="sm">
          {LANGUAGES.map(({ name }) => (
            <Tabs.Tab key={name} value={name}>
              {name}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {LANGUAGES.map(({ name, forUsers, forItself, checking }) => (
          <Tabs.Panel key={name} value={name}>
            <Stack>
              {grantTypes.includes('authorization_code') && (
                <CodeExample title="A user allows it to act for them" code={forUsers(use)} />
              )}
              {grantTypes.includes('client_credentials') && (
                <CodeExample title="It gets a token for itself" code={forItself(ownOf(use))} />
              )}
              <CodeExample
                title="An API checks the token that it is called with"
                code={checking(ownOf(use))}
              />
            </Stack>
          </Tabs.Panel>
        ))}
      </Tabs>
    </Stack>
  );
}

/** What is said of a user is nothing that an application is given for itself, nor what an API asks for. */
const OF_USERS: ReadonlySet<string> = new Set(['openid', 'profile', 'email', 'offline_access']);

const ownOf = (use: Use): Use => ({ ...use, scopes: use.scopes.filter((scope) => !OF_USERS.has(scope)) });
