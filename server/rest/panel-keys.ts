/** What end users do with their own API keys, by panel token or by a session of a trusted issuer. */
import { z } from 'zod';
import { API_KEY_STATES } from '../domain/api-keys.ts';
import {
  completePanelKeyRotation,
  createPanelKey,
  createPanelKeyInput,
  getPanelKeyUsage,
  getPanelOptions,
  listPanelKeys,
  listPanelKeysInput,
  panelKeyIdInput,
  revokePanelKey,
  revokePanelKeyInput,
  rotatePanelKey,
  rotatePanelKeyInput,
  updatePanelKey,
  updatePanelKeyInput,
} from '../domain/panel-keys.ts';
import { PANEL_ACTIONS } from '../domain/panel-tokens.ts';
import { at, count, named, nothing, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const panelOptionsOutput = named(
  'PanelOptions',
  z.object({
    subject: z.string(),
    actions: z.array(z.enum(PANEL_ACTIONS)).readonly(),
    scopes: z.array(z.string()),
    ttlSecondsDefault: count.nullable(),
    ttlSecondsMax: count.nullable(),
    liveKeys: count,
    liveKeysMax: count.nullable(),
  }),
);

const panelKeyOutput = named(
  'PanelKey',
  z.object({
    id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    scopes: z.array(z.string()),
    createdBy: z.string().nullable(),
    start: z.string(),
    state: z.enum(API_KEY_STATES),
    expiresAt: at.nullable(),
    revokedAt: at.nullable(),
    lastUsedAt: at.nullable(),
    createdAt: at,
    updatedAt: at,
    previousExpiresAt: at.nullable(),
  }),
);

const panelKeyWithSecret = named(
  'PanelKeyWithSecret',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...panelKeyOutput.shape, secret: z.string().optional() }),
);

const panelKeyUsageOutput = named(
  'PanelKeyUsage',
  z.object({ from: at, to: at, usage: z.array(z.object({ at, valid: count, refused: count })) }),
);

export const panelKeyRoutes: readonly Route[] = [
  route('GET /v1/panel', 'panelKeys.options', {
    input: nothing,
    output: panelOptionsOutput,
    run: ({ deps, caller }) => getPanelOptions(deps, caller),
  }),
  route('GET /v1/panel/api_keys', 'panelKeys.list', {
    input: listPanelKeysInput,
    output: pageOf(panelKeyOutput).extend({ count }),
    run: ({ deps, caller }, input) => listPanelKeys(deps, caller, input),
  }),
  route('POST /v1/panel/api_keys', 'panelKeys.create', {
    input: createPanelKeyInput,
    output: panelKeyWithSecret,
    run: ({ deps, caller }, input) => createPanelKey(deps, caller, input),
  }),
  route('PATCH /v1/panel/api_keys/{id}', 'panelKeys.update', {
    input: updatePanelKeyInput,
    output: panelKeyOutput,
    run: ({ deps, caller }, input) => updatePanelKey(deps, caller, input),
  }),
  route('POST /v1/panel/api_keys/{id}/rotate', 'panelKeys.rotate', {
    input: rotatePanelKeyInput,
    output: panelKeyWithSecret,
    run: ({ deps, caller }, input) => rotatePanelKey(deps, caller, input),
  }),
  route('POST /v1/panel/api_keys/{id}/complete_rotation', 'panelKeys.completeRotation', {
    input: panelKeyIdInput,
    output: panelKeyOutput,
    run: ({ deps, caller }, { id }) => completePanelKeyRotation(deps, caller, id),
  }),
  route('POST /v1/panel/api_keys/{id}/revoke', 'panelKeys.revoke', {
    input: revokePanelKeyInput,
    output: panelKeyOutput,
    run: ({ deps, caller }, input) => revokePanelKey(deps, caller, input),
  }),
  route('GET /v1/panel/api_keys/{id}/usage', 'panelKeys.usage', {
    input: panelKeyIdInput,
    output: panelKeyUsageOutput,
    run: ({ deps, caller }, { id }) => getPanelKeyUsage(deps, caller, id),
  }),
];
