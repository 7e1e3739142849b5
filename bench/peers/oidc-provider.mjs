/**
 * oidc-provider issuing opaque access tokens for client credentials, with its memory adapter, which keeps the last
 * thousand things it was told and nothing on disk.
 */
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const CLIENT = { id: 'bench', secret: 'a-secret-of-a-measurement-which-protects-nothing' };

const provider = new Provider('http://127.0.0.1', {
  clients: [
    {
      client_id: CLIENT.id,
      client_secret: CLIENT.secret,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
});

const server = createServer(provider.callback());
server.listen(0, '127.0.0.1', () => {
  const requests = [
    {
      path: '/token',
      authorization: `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`,
      contentType: 'application/x-www-form-urlencoded',
      body: 'grant_type=client_credentials',
    },
  ];
  process.stdout.write(`ready ${JSON.stringify({ port: server.address().port, requests })}\n`);
});
