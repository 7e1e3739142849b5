/**
 * What an exported log says was taken away after a backup was made, taken away again from what was restored. A file of
 * somebody's may take, and never give: what it says of grants is passed over.
 */
import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
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
import { revokeInitialAccessToken } from './initial-access-tokens.ts';
import { revokeAllM2mTokens, revokeM2mToken } from './m2m-tokens.ts';
import { deleteMachineScope, machineScopeInput, updateMachineScope } from './machine-scopes.ts';
import { deleteMachine, revokeTokensIssued, setMachineEnabled } from './machines.ts';
import {
  deleteOauthApplication,
  revokeOauthApplicationTokens,
  setOauthApplicationEnabled,
} from './oauth-applications.ts';
import {
  revokeAllOauthGrants,
  revokeOauthGrant,
  withdrawOauthConsent,
  withdrawOauthConsentInput,
} from './oauth-grants.ts';
import { revokeOauthToken } from './oauth-tokens.ts';
import { deletePanelIssuer } from './panel-issuers.ts';
import { isLastAdmin, revokeSecretKey } from './secret-keys.ts';
import { type NewSecret, type SecretRow, saveSecret } from './secrets.ts';
import { emergencyRetireSigningKey } from './signing-keys.ts';
import { setSubjectEnabled } from './subjects.ts';
import { deleteUser, setUserEnabled } from './users.ts';
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

type OwnerKind = NewSecret['owner']['kind'];

/** A value that was replaced is not accepted for longer than it would have been; the new one is in no log. */
const endValuesOf =
  (kind: OwnerKind): Replay =>
  (deps, _caller, { objectId, at, data }) =>
    deps.store.tx(async (tx) => {
      const until = typeof data['previousExpiresAt'] === 'number' ? data['previousExpiresAt'] : at;
      await endBy(tx, deps, await unrevoked(tx, { kind, id: objectId }), until);
      // What was minted with the secret that leaked went with it.
      if (kind === 'machine' && data['compromised'] === true) await revokeTokensIssued(tx, deps, objectId);
    }, 'revocation');

/** With a client secret that leaked went all that the application had been given. */
async function endApplicationValues(deps: Deps, caller: Caller, event: ExportedEvent): Promise<unknown> {
  await endValuesOf('oauth_application')(deps, caller, event);
  if (event.data['compromised'] !== true) return;
  return revokeOauthApplicationTokens(deps, caller, { id: event.objectId });
}

/** The value that an overlap was to end later, where it ran when the backup was made or was begun since. */
const endOverlapOf =
  (kind: OwnerKind): Replay =>
  (deps, _caller, { objectId, at }) =>
    deps.store.tx(async (tx) => {
      const values = await unrevoked(tx, { kind, id: objectId });
      await endBy(
        tx,
        deps,
        values.filter((row) => row.expires_at !== null),
        at,
      );
    }, 'revocation');

/** The new value of an overlap that ran when the backup was made: it was taken back, perhaps because it had leaked. */
const takeBackOf =
  (kind: OwnerKind): Replay =>
  (deps, _caller, { objectId }) =>
    deps.store.tx(async (tx) => {
      const values = await unrevoked(tx, { kind, id: objectId });
      for (const row of values.filter(({ expires_at }) => expires_at === null))
        await saveSecret(tx, deps, { ...row, revoked_at: deps.now(), rotate_by: null });
    }, 'revocation');

async function unrevoked(tx: Rows, { kind, id }: NewSecret['owner']): Promise<SecretRow[]> {
  const { secrets: s } = tx.tables;
  const values = await tx.db
    .select()
    .from(s)
    .where(and(eq(s.owner_kind, kind), eq(s.owner_id, id), isNull(s.revoked_at)));
  if (values.length === 0) throw new CountersignError('not_found', `Nothing has the id '${id}'`);
  return values;
}

async function endBy(tx: Rows, deps: Deps, values: readonly SecretRow[], until: number) {
  for (const row of values)
    await saveSecret(tx, deps, {
      ...row,
      expires_at: Math.min(row.expires_at ?? until, until),
      rotate_by: null,
    });
}

/** Of what it may do there, no more than it was left with. */
async function narrowMachineScope(deps: Deps, caller: Caller, { data }: ExportedEvent): Promise<unknown> {
  const { scopes: left, ...edge } = narrowedScope.parse(data);
  const { machineScopes: e } = deps.store.read.tables;
  const [row] = await deps.store.read.db
    .select({ scopes: e.scopes })
    .from(e)
    .where(and(eq(e.from_machine_id, edge.fromMachineId), eq(e.to_machine_id, edge.toMachineId)));
  if (!row) throw new CountersignError('not_found', 'There is no such machine scope');
  const scopes = row.scopes.filter((scope) => left.includes(scope));
  return updateMachineScope(deps, caller, { ...edge, scopes });
}

const narrowedScope = z.object({
  fromMachineId: z.string(),
  toMachineId: z.string(),
  scopes: z.array(z.string()),
});

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
  'machine.secret_rotation_completed': endOverlapOf('machine'),
  'machine.secret_rotation_cancelled': takeBackOf('machine'),
  'machine_scope.updated': narrowMachineScope,
  'machine_scope.deleted': (deps, caller, { data: { fromMachineId, toMachineId } }) =>
    deleteMachineScope(deps, caller, machineScopeInput.parse({ fromMachineId, toMachineId })),
  'm2m_token.revoked': (deps, caller, { objectId }) => revokeM2mToken(deps, caller, { id: objectId }),
  'api_key.disabled': (deps, caller, { objectId }) => setApiKeyEnabled(deps, caller, objectId, false),
  'api_key.revoked': (deps, caller, { objectId }) =>
    revokeApiKey(deps, caller, { id: objectId, reason: 'unspecified' }),
  'api_key.deleted': (deps, caller, { objectId }) => deleteApiKey(deps, caller, objectId),
  'api_key.secret_rotated': endValuesOf('api_key'),
  'api_key.secret_rotation_completed': endOverlapOf('api_key'),
  'api_key.secret_rotation_cancelled': takeBackOf('api_key'),
  'subject.disabled': (deps, caller, { objectId }) =>
    setSubjectEnabled(deps, caller, { id: objectId }, false),
  'user.disabled': (deps, caller, { objectId }) => setUserEnabled(deps, caller, { id: objectId }, false),
  'user.deleted': (deps, caller, { objectId }) => deleteUser(deps, caller, { id: objectId }),
  'subject.api_keys_revoked': (deps, caller, { data }) =>
    revokeAllApiKeys(deps, caller, revokeAllApiKeysInput.parse(data['selector'])),
  'initial_access_token.revoked': (deps, caller, { objectId }) =>
    revokeInitialAccessToken(deps, caller, { id: objectId }),
  'secret_key.revoked': (deps, caller, { objectId }) => revokeSecretKey(deps, caller, { id: objectId }),
  'secret_key.secret_rotated': endSecretKey,
  'secret_key.secret_rotation_completed': endOverlapOf('secret_key'),
  'secret_key.secret_rotation_cancelled': takeBackOf('secret_key'),
  'oauth_application.disabled': (deps, caller, { objectId }) =>
    setOauthApplicationEnabled(deps, caller, objectId, false),
  'oauth_application.deleted': (deps, caller, { objectId }) =>
    deleteOauthApplication(deps, caller, { id: objectId }),
  'oauth_application.tokens_revoked': (deps, caller, { objectId }) =>
    revokeOauthApplicationTokens(deps, caller, { id: objectId }),
  'oauth_application.secret_rotated': endApplicationValues,
  'oauth_application.secret_rotation_completed': endOverlapOf('oauth_application'),
  'oauth_application.secret_rotation_cancelled': takeBackOf('oauth_application'),
  'oauth_consent.withdrawn': (deps, caller, { data }) =>
    withdrawOauthConsent(deps, caller, withdrawOauthConsentInput.parse(data['selector'])),
  'subject.oauth_grants_revoked': (deps, caller, { objectId }) =>
    revokeAllOauthGrants(deps, caller, { subject: objectId }),
  'oauth_grant.revoked': (deps, caller, { objectId }) => revokeOauthGrant(deps, caller, { id: objectId }),
  'oauth_token.revoked': (deps, caller, { objectId }) => revokeOauthToken(deps, caller, { id: objectId }),
  'signing_key.emergency_retired': (deps, caller, { objectId }) =>
    emergencyRetireSigningKey(deps, caller, { kid: objectId }),
  'panel_issuer.deleted': (deps, caller, { objectId }) => deletePanelIssuer(deps, caller, { id: objectId }),
  'webhook_endpoint.disabled': (deps, caller, { objectId }) =>
    setWebhookEndpointEnabled(deps, caller, { id: objectId }, false),
  'webhook_endpoint.deleted': (deps, caller, { objectId }) =>
    deleteWebhookEndpoint(deps, caller, { id: objectId }),
};

/** What was changed and is not, or not all of it, done again: whoever restores is told to look. */
const TO_LOOK_AT: ReadonlySet<EventType> = new Set<EventType>([
  'machine.updated',
  'machine.secret_rotation_cancelled',
  'machine.secret_expired',
  'api_key.updated',
  'api_key.secret_rotation_cancelled',
  'api_key.secret_expired',
  'secret_key.secret_rotation_cancelled',
  'secret_key.secret_expired',
  'api_key.credits_changed',
  'user.password_set',
  'user.updated',
  'subject.updated',
  'subject.credits_changed',
  'key_policy.updated',
  'oauth_application.updated',
  'oauth_application.secret_rotation_cancelled',
  'webhook_endpoint.updated',
  'webhook_endpoint.secret_rotated',
]);

/** Whether an event of this type is done again, or told of, when a log is replayed. */
export const isHeeded = (type: EventType): boolean => REPLAYS[type] !== undefined || TO_LOOK_AT.has(type);

/** What gives back what one of before took: then neither is done. */
const UNDONE_BY: Partial<Record<EventType, EventType>> = {
  'machine.disabled': 'machine.enabled',
  'api_key.disabled': 'api_key.enabled',
  'oauth_application.disabled': 'oauth_application.enabled',
  'subject.disabled': 'subject.enabled',
  'user.disabled': 'user.enabled',
  'webhook_endpoint.disabled': 'webhook_endpoint.enabled',
  // Only what it was left with in the end.
  'machine_scope.updated': 'machine_scope.updated',
};

const ROTATION = /^(\w+)\.secret_(rotated|rotation_cancelled|rotation_completed)$/;

/** Events that others in the log make as if they had not been. */
function undoneIn(events: readonly ExportedEvent[]): ReadonlySet<ExportedEvent> {
  const undone = new Set<ExportedEvent>();
  /** By type and object, what waits for an event that undoes it; and by noun and object, the last step of a rotation. */
  const waiting = new Map<string, ExportedEvent[]>();
  const steps = new Map<string, ExportedEvent>();
  for (const event of events) {
    const { type, objectId } = event;
    for (const before of waiting.get(`${type} ${objectId}`) ?? []) undone.add(before);
    waiting.delete(`${type} ${objectId}`);
    const undo = UNDONE_BY[type];
    if (undo !== undefined) {
      const key = `${undo} ${objectId}`;
      waiting.set(key, [...(waiting.get(key) ?? []), event]);
    }
    const noun = ROTATION.exec(type)?.[1];
    if (noun === undefined) continue;
    const before = steps.get(`${noun} ${objectId}`);
    // A rotation and the cancelling of it leave what there was.
    if (type === `${noun}.secret_rotation_cancelled` && before?.type === `${noun}.secret_rotated`)
      undone.add(before).add(event);
    steps.set(`${noun} ${objectId}`, event);
  }
  return undone;
}

export interface ReplayReport {
  replayed: number;
  /** Of things that the backup does not hold. */
  unknown: number;
  /** Could not be done, with why. */
  failed: { seq: number; type: EventType; objectId: string; message: string }[];
  /** Changed since, and not done again. */
  toLookAt: { type: EventType; objectId: string }[];
}

/** Does again what events in order took away; those of things that are not there are counted and passed over. */
export async function replayEvents(deps: Deps, events: readonly ExportedEvent[]): Promise<ReplayReport> {
  const report: ReplayReport = { replayed: 0, unknown: 0, failed: [], toLookAt: [] };
  const undone = undoneIn(events);
  for (const event of events) {
    const { seq, type, objectId } = event;
    if (undone.has(event)) continue;
    if (TO_LOOK_AT.has(type)) report.toLookAt.push({ type, objectId });
    const replay = REPLAYS[type];
    if (!replay) continue;
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
