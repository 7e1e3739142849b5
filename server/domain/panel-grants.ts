/** What end users see of the applications that they let act for them, and how they take that back. */
import { z } from 'zod';
import type { Caller, Deps, EndUser } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import {
  type ConnectedApplication,
  listConnectedApplications,
  listConnectedApplicationsInput,
} from './connected-applications.ts';
import { oauthApplicationId } from './fields.ts';
import { withdrawOauthConsent } from './oauth-grants.ts';
import type { Page } from './pages.ts';
import type { PanelAction } from './panel-tokens.ts';

export const listPanelGrantsInput = listConnectedApplicationsInput;

/** The applications that whoever sits in front of the panel let act for them, and whether this panel may take that back. */
export async function listPanelGrants(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof listPanelGrantsInput>,
): Promise<Page<ConnectedApplication> & { mayRevoke: boolean }> {
  const { id, actions } = endUser(caller, 'read_grants');
  const page = await listConnectedApplications(deps, id, input);
  return { ...page, mayRevoke: actions.includes('revoke_grants') };
}

export const revokePanelGrantInput = z.strictObject({
  applicationId: oauthApplicationId.meta({ positional: true }),
});

/**
 * Takes back all that an application was allowed by whoever sits in front of the panel: its grants end with every token
 * that hangs on them, and it has to ask again.
 */
export async function revokePanelGrant(
  deps: Deps,
  caller: Caller,
  { applicationId }: z.output<typeof revokePanelGrantInput>,
): Promise<{ applicationId: string; revokedAt: number }> {
  const { id: subject } = endUser(caller, 'revoke_grants');
  const { revokedAt } = await withdrawOauthConsent(deps, caller, { subject, applicationId });
  return { applicationId, revokedAt };
}

/**
 * Who is calling, if they may do so much. What a person allowed is theirs, whichever organization the panel is for: it
 * goes by `id`, and not by `subject`.
 */
function endUser({ principal }: Caller, action: PanelAction): EndUser {
  if (principal.kind === 'end_user' && principal.actions.includes(action)) return principal;
  throw new CountersignError(
    'forbidden',
    action === 'read_grants'
      ? 'This panel may not list connected applications'
      : 'This panel may not withdraw connected applications',
  );
}
