/** What end users do with the applications that they let act for them, by panel token or by a session of a trusted issuer. */
import { z } from 'zod';
import {
  listPanelGrants,
  listPanelGrantsInput,
  revokePanelGrant,
  revokePanelGrantInput,
} from '../domain/panel-grants.ts';
import { at, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const connectedApplicationOutput = named(
  'ConnectedApplication',
  z.object({
    applicationId: z.string(),
    name: z.string(),
    clientUri: z.string().nullable(),
    redirectHosts: z.array(z.string()),
    scopes: z.array(z.object({ name: z.string(), description: z.string() })),
    organizationIds: z.array(z.string()),
    firstAllowedAt: at,
    lastUsedAt: at.nullable(),
  }),
);

export const panelGrantRoutes: readonly Route[] = [
  route('GET /v1/panel/applications', 'panelGrants.list', {
    input: listPanelGrantsInput,
    output: pageOf(connectedApplicationOutput).extend({ mayRevoke: z.boolean() }),
    run: ({ deps, caller }, input) => listPanelGrants(deps, caller, input),
  }),
  route('POST /v1/panel/applications/{application_id}/revoke', 'panelGrants.revoke', {
    input: revokePanelGrantInput,
    output: z.object({ applicationId: z.string(), revokedAt: at }),
    run: ({ deps, caller }, input) => revokePanelGrant(deps, caller, input),
  }),
];
