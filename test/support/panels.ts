/** Panel tokens, as an application's backend has them made. */
import type { Deps } from '../../server/deps.ts';
import { PANEL_ACTIONS } from '../../server/domain/panel-tokens.ts';
import { call } from './calls.ts';
import type { TestDeps } from './deps.ts';

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
