/** Panel tokens, and whose session tokens count in their place. */
import { z } from 'zod';
import {
  createPanelIssuer,
  createPanelIssuerInput,
  deletePanelIssuer,
  listPanelIssuers,
  panelIssuerIdInput,
} from '../domain/panel-issuers.ts';
import { createPanelToken, createPanelTokenInput, PANEL_ACTIONS } from '../domain/panel-tokens.ts';
import { at, deletedOutput, named, nothing } from './fields.ts';
import { type Route, route } from './route.ts';

const panelTokenOutput = named(
  'PanelToken',
  z.object({
    id: z.string(),
    // Absent where an idempotency key had the answer of before repeated.
    token: z.string().optional(),
    subject: z.string(),
    createdBy: z.string().nullable(),
    actions: z.array(z.enum(PANEL_ACTIONS)),
    scopeCeiling: z.array(z.string()).nullable(),
    policyId: z.string().nullable(),
    createdAt: at,
    expiresAt: at,
  }),
);

const panelIssuerOutput = named(
  'PanelIssuer',
  z.object({
    id: z.string(),
    issuer: z.string(),
    jwksUrl: z.string(),
    audience: z.string().nullable(),
    authorizedParties: z.array(z.string()).nullable(),
    organizationClaim: z.string().nullable(),
    roleClaim: z.string().nullable(),
    manageRoles: z.array(z.string()),
    scopeCeiling: z.array(z.string()).nullable(),
    policyId: z.string().nullable(),
    createdAt: at,
  }),
);

export const panelTokenRoutes: readonly Route[] = [
  route('POST /v1/panel_tokens', 'panelTokens.create', {
    input: createPanelTokenInput,
    output: panelTokenOutput,
    run: ({ deps, caller }, input) => createPanelToken(deps, caller, input),
  }),
  route('POST /v1/panel_issuers', 'panelIssuers.create', {
    input: createPanelIssuerInput,
    output: panelIssuerOutput,
    run: ({ deps, caller }, input) => createPanelIssuer(deps, caller, input),
  }),
  route('GET /v1/panel_issuers', 'panelIssuers.list', {
    input: nothing,
    output: z.array(panelIssuerOutput),
    run: ({ deps }) => listPanelIssuers(deps),
  }),
  route('DELETE /v1/panel_issuers/{id}', 'panelIssuers.delete', {
    input: panelIssuerIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => deletePanelIssuer(deps, caller, input),
  }),
];
