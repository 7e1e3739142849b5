import { generateKeyPairSync, sign } from 'node:crypto';
import { clerkMiddleware } from '@clerk/express';
import { expect, it } from 'vitest';
import { clientVerifier } from '../../client/express.ts';
import { createCountersign } from '../../client/index.ts';
import { createApi } from '../../examples/beside-clerk.ts';
import { createApiKey, createApiKeyInput, revokeApiKey } from '../../server/domain/api-keys.ts';
import { callerWith, openTestDeps } from '../support/deps.ts';
import { allow, newMachine } from '../support/machines.ts';
import { listen, serveProcedures } from '../support/procedures.ts';

const admin = callerWith('admin');
const USER_ID = `user_${'1'.repeat(27)}`;
const CLERK_HOST = 'clerk.example.com';

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Clerk as far as signed-in people need it: a key of its own, and an API that is asked nothing for them. */
async function startClerk() {
  const api = await listen((_, response) => response.writeHead(404).end('{"errors":[]}'));
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: 'RS256', typ: 'JWT', kid: 'ins_1', cat: 'cl_B7d4PD111AAA' };
  const payload = {
    iss: `https://${CLERK_HOST}`,
    sub: USER_ID,
    sid: 'sess_1',
    iat: now - 10,
    nbf: now - 10,
    exp: now + 60,
  };
  const signed = `${part(header)}.${part(payload)}`;
  const session = `${signed}.${sign('sha256', Buffer.from(signed), privateKey).toString('base64url')}`;
  const middleware = clerkMiddleware({
    secretKey: 'sk_test_clerk',
    publishableKey: `pk_live_${Buffer.from(`${CLERK_HOST}$`).toString('base64')}`,
    jwtKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    apiUrl: api.url,
  });
  return { session, middleware, asked: api.paths };
}

it('machines are judged here and people by Clerk, which is shown no credential of a machine', async () => {
  const deps = await openTestDeps('sqlite');
  const { url } = await serveProcedures(deps);
  const ledger = await newMachine(deps, 'ledger', { mayVerify: true });
  const billing = await newMachine(deps, 'billing');
  await allow(deps, billing.id, ledger.id);
  const clerk = await startClerk();
  const verifier = clientVerifier(createCountersign({ url, machineSecretKey: ledger.secret }));
  const service = await listen(createApi(verifier, clerk.middleware));
  async function whoami(headers: Record<string, string>) {
    const response = await fetch(`${service.url}/whoami`, { headers });
    return { status: response.status, body: await response.json() };
  }
  const key = await createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }));
  const secret = key.secret ?? '';
  const caller = createCountersign({ url, machineSecretKey: billing.secret });
  const { token } = await caller.m2mTokens.create();

  const isKey = { status: 200, body: { kind: 'api_key', subject: 'user_1' } };
  expect(await whoami({ authorization: `Bearer ${secret}` })).toEqual(isKey);
  expect(await whoami({ 'x-api-key': secret })).toEqual(isKey);
  expect(await whoami({ authorization: `Bearer ${token}` })).toMatchObject({
    body: { kind: 'm2m_token', subject: billing.id },
  });
  expect(await whoami({ authorization: `Bearer ${clerk.session}` })).toEqual({
    status: 200,
    body: { kind: 'session', subject: USER_ID },
  });
  expect(await whoami({})).toMatchObject({ status: 401, body: { code: 'unauthenticated' } });
  // Which of the two is meant nobody can tell.
  const both = { 'x-api-key': secret, authorization: `Bearer ${clerk.session}` };
  expect(await whoami(both)).toMatchObject({ status: 400, body: { code: 'invalid_input' } });

  await revokeApiKey(deps, admin, { id: key.id, reason: 'compromised' });
  const refused = { status: 401, body: { code: 'unauthenticated', reason: 'revoked' } };
  expect(await whoami({ authorization: `Bearer ${secret}` })).toMatchObject(refused);
  expect(await whoami({ authorization: 'Bearer ak_garbage' })).toMatchObject({ status: 401 });
  expect(clerk.asked).toEqual([]);
});
