/** Panel tokens, as an application's backend has them made, and what panels show. */
import type { Deps } from '../../server/deps.ts';
import {
  createOauthApplication,
  createOauthApplicationInput,
} from '../../server/domain/oauth-applications.ts';
import { insertGrant } from '../../server/domain/oauth-grants.ts';
import { PANEL_ACTIONS } from '../../server/domain/panel-tokens.ts';
import { call } from './calls.ts';
import { callerWith, type TestDeps } from './deps.ts';

/** The value of a panel token that the first admin key made; for everything, unless something else is asked for. */
export async function newPanelToken(
  deps: TestDeps,
  subject: string,
  more: Record<string, unknown> = {},
): Promise<string> {
  const input = { subject, actions: PANEL_ACTIONS, ...more };
  const { token } = (await call(deps as Deps, deps.adminKey, 'panelTokens.create', input)) as {
    token: string;
  };
  return token;
}

/** An OAuth application that a user let act for them. */
export async function newConnectedApplication(
  deps: TestDeps,
  subject: string,
): Promise<{ applicationId: string }> {
  const redirectUri = 'https://app.example/callback';
  const input = createOauthApplicationInput.parse({ name: 'connected', redirectUris: [redirectUri] });
  const { id } = await createOauthApplication(deps, callerWith('admin'), input);
  await deps.store.tx((tx) =>
    insertGrant(tx, deps, {
      application: { id, token_generation: 0, refresh_token_max_seconds: null, unused_until: null },
      subject,
      organizationId: null,
      scopes: ['openid'],
      resources: [],
      redirectUri,
      claims: {},
      authTime: deps.now(),
      nonce: null,
    }),
  );
  return { applicationId: id };
}
