/**
 * What an exported log says was taken away after a backup was made, taken away again from what was restored. A file of
 * somebody's may take, and never give: what it says of grants is passed over.
 */
import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import {
  deleteApiKey,
  revokeAllApiKeys,
  revokeAllApiKeysInput,
  revokeApiKey,
  setApiKeyEnabled,
} from './api-keys.ts';
import { EVENT_TYPES, type EventType } from './event-types.ts';
import { revokeAllM2mTokens, revokeM2mToken } from './m2m-tokens.ts';
import { deleteMachineScope, machineScopeInput } from './machine-scopes.ts';
import { deleteMachine, setMachineEnabled } from './machines.ts';
import { deletePanelIssuer } from './panel-issuers.ts';
import { isLastAdmin, revokeSecretKey } from './secret-keys.ts';
import { type NewSecret, saveSecret } from './secrets.ts';
import { emergencyRetireSigningKey } from './signing-keys.ts';
import { setSubjectEnabled } from './subjects.ts';
import { deleteWebhookEndpoint, setWebhookEndpointEnabled } from './webhook-endpoints.ts';

/** One line of `countersign events export`. */
export const exportedEvent = z.object({
  seq: z.number().int().min(1),
  id: z.string().max(64),
  at: z.number().int(),
  type: z.enum(Object.keys(EVENT_TYPES) as [EventType, ...EventType[]]),
  objectId: z.string().max(1024),
  subject: z.string().nullable(),
  data: z.record(z.string(), z.unknown()),
});

export type ExportedEvent = z.output<typeof exportedEvent>;

type Replay = (deps: Deps, caller: Caller, event: ExportedEvent) => Promise<unknown>;

/** A value that was replaced is not accepted for longer than it would have been; the new one is in no log. */
const endValuesOf =
  (kind: NewSecret['owner']['kind']): Replay =>
  (deps, _caller, { objectId, at, data }) =>
    deps.store.tx(async (tx) => {
      const until = typeof data['previousExpiresAt'] === 'number' ? data['previousExpiresAt'] : at;
      const { secrets: s } = tx.tables;
      const live = await tx.db
        .select()
        .from(s)
        .where(and(eq(s.owner_kind, kind), eq(s.owner_id, objectId), isNull(s.revoked_at)));
      if (live.length === 0) throw new CountersignError('not_found', `Nothing has the id '${objectId}'`);
      for (const row of live)
        await saveSecret(tx, deps, {
          ...row,
          expires_at: Math.min(row.expires_at ?? until, until),
          rotate_by: null,
        });
    }, 'revocation');

/** Of the last admin key the value of before stays: without it nobody could rotate anything. */
async function endSecretKey(deps: Deps, caller: Caller, event: ExportedEvent): Promise<unknown> {
  if (!(await deps.store.tx((tx) => isLastAdmin(tx, deps, event.objectId))))
    return endValuesOf('secret_key')(deps, caller, event);
  throw new CountersignError(
    'last_admin_key',
    'It is the last admin key, so the value that it had in the backup is accepted: rotate it',
  );
}

/** By type: what takes something away and can be done again. */
const REPLAYS: Partial<Record<EventType, Replay>> = {
  'machine.disabled': (deps, caller, { objectId }) => setMachineEnabled(deps, caller, objectId, false),
  'machine.deleted': (deps, caller, { objectId }) => deleteMachine(deps, caller, objectId),
  'machine.tokens_revoked': (deps, caller, { objectId }) =>
    revokeAllM2mTokens(deps, caller, { machineId: objectId }),
  'machine.secret_rotated': endValuesOf('machine'),
  'machine_scope.deleted': (deps, caller, { data: { fromMachineId, toMachineId } }) =>
    deleteMachineScope(deps, caller, machineScopeInput.parse({ fromMachineId, toMachineId })),
  'm2m_token.revoked': (deps, caller, { objectId }) => revokeM2mToken(deps, caller, { id: objectId }),
  'api_key.disabled': (deps, caller, { objectId }) => setApiKeyEnabled(deps, caller, objectId, false),
  'api_key.revoked': (deps, caller, { objectId }) =>
    revokeApiKey(deps, caller, { id: objectId, reason: 'unspecified' }),
  'api_key.deleted': (deps, caller, { objectId }) => deleteApiKey(deps, caller, objectId),
  'api_key.secret_rotated': endValuesOf('api_key'),
  'subject.disabled': (deps, caller, { objectId }) =>
    setSubjectEnabled(deps, caller, { id: objectId }, false),
  'subject.api_keys_revoked': (deps, caller, { data }) =>
    revokeAllApiKeys(deps, caller, revokeAllApiKeysInput.parse(data['selector'])),
  'secret_key.revoked': (deps, caller, { objectId }) => revokeSecretKey(deps, caller, { id: objectId }),
  'secret_key.secret_rotated': endSecretKey,
  'signing_key.emergency_retired': (deps, caller, { objectId }) =>
    emergencyRetireSigningKey(deps, caller, { kid: objectId }),
  'panel_issuer.deleted': (deps, caller, { objectId }) => deletePanelIssuer(deps, caller, { id: objectId }),
  'webhook_endpoint.disabled': (deps, caller, { objectId }) =>
    setWebhookEndpointEnabled(deps, caller, { id: objectId }, false),
  'webhook_endpoint.deleted': (deps, caller, { objectId }) =>
    deleteWebhookEndpoint(deps, caller, { id: objectId }),
};

/** What was changed to something that no event says: whoever restores is told to look. */
const TO_LOOK_AT: ReadonlySet<EventType> = new Set<EventType>([
  'machine.updated',
  'machine_scope.updated',
  'api_key.updated',
  'api_key.credits_changed',
  'subject.updated',
  'subject.credits_changed',
  'key_policy.updated',
]);

/** What gives back what one of before took: then neither is done. */
const UNDONE_BY: Partial<Record<EventType, EventType>> = {
  'machine.disabled': 'machine.enabled',
  'api_key.disabled': 'api_key.enabled',
  'subject.disabled': 'subject.enabled',
  'webhook_endpoint.disabled': 'webhook_endpoint.enabled',
};

export interface ReplayReport {
  replayed: number;
  /** Of things that the backup does not hold. */
  unknown: number;
  /** Could not be done, with why. */
  failed: { seq: number; type: EventType; objectId: string; message: string }[];
  /** Changed since to something that no event says. */
  toLookAt: { type: EventType; objectId: string }[];
}

/** Does again what events in order took away; those of things that are not there are counted and passed over. */
export async function replayEvents(deps: Deps, events: readonly ExportedEvent[]): Promise<ReplayReport> {
  const report: ReplayReport = { replayed: 0, unknown: 0, failed: [], toLookAt: [] };
  for (const [index, event] of events.entries()) {
    const { seq, type, objectId } = event;
    if (TO_LOOK_AT.has(type)) report.toLookAt.push({ type, objectId });
    const replay = REPLAYS[type];
    const undo = UNDONE_BY[type];
    const isUndone =
      undo !== undefined &&
      events.slice(index + 1).some((later) => later.type === undo && later.objectId === objectId);
    if (!replay || isUndone) continue;
    try {
      await replay(
        deps,
        { principal: { kind: 'system', id: 'restore' }, requestId: `restore ${seq}` },
        event,
      );
      report.replayed += 1;
    } catch (error) {
      if (error instanceof CountersignError && error.code === 'not_found') report.unknown += 1;
      else if (error instanceof CountersignError || error instanceof z.ZodError)
        report.failed.push({ seq, type, objectId, message: error.message });
      else throw error;
    }
  }
  return report;
}
