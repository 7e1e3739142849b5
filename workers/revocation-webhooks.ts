/** The job that sends events to webhook endpoints, revocations first. */
import type { Deps } from '../server/deps.ts';
import { type Attempted, attemptDelivery } from '../server/domain/delivery-attempts.ts';
import { type Claim, claimDeliveries, claimUrgent, Slots, Turns } from '../server/domain/delivery-claims.ts';
import { type Expanded, expandAhead, expandEvents, expandSome } from '../server/domain/delivery-expansion.ts';
import type { Logger } from '../server/logger.ts';
import type { Metrics } from '../server/metrics.ts';
import type { Claimed, Job, JobRef } from './transport.ts';

export function revocationWebhooks(deps: Deps, logger: Logger, metrics: Metrics): Job {
  const turns = new Turns();
  const slots = new Slots();
  let writtenOut = -1;
  return {
    name: 'revocation-webhooks',
    async claim(limit) {
      if (turns.areUrgent) return (await claimBesides(limit)).map(toClaimed);
      // Half of the room is for what waits already, lest what is new always goes before it.
      const claimMax = turns.areOver ? Math.ceil(limit / 2) : 0;
      // All of the log first: a revocation may be its last event, and goes ahead of everything before it.
      const claimed = note(await expandEvents(deps, { turns, claimMax }));
      const all = [...claimed, ...(await claimDeliveries(deps, limit - claimed.length, turns))];
      return all.map(toClaimed);
    },
    async claimAhead(limit) {
      if (!turns.areOver) return [];
      return note(await expandAhead(deps, { turns, claimMax: Math.ceil(limit / 2) })).map(toClaimed);
    },
    async run(ref) {
      const attempted = await attempt(ref);
      if (!attempted) return;
      metrics.delivery(attempted.outcome, attempted);
      report(logger, ref, attempted);
    },
  };

  /** Revocations that wait already are claimed beside a step of writing out; whatever becomes of that, they are. */
  async function claimBesides(limit: number): Promise<readonly Claim[]> {
    const [urgent, step] = await Promise.allSettled([claimUrgent(deps, limit, turns), expandSome(deps)]);
    if (step.status === 'fulfilled') note(step.value);
    else if (urgent.status === 'rejected' || urgent.value.length === 0) throw step.reason;
    if (urgent.status === 'rejected') throw urgent.reason;
    // There may be more to claim than this.
    deps.wake('revocation-webhooks');
    return urgent.value;
  }

  function note({ from, upTo, claimed, isLeft }: Expanded): readonly Claim[] {
    if (isLeft || from !== writtenOut) turns.forget();
    writtenOut = upTo;
    for (const { endpointId } of claimed) turns.began(endpointId);
    return claimed;
  }

  async function attempt(ref: JobRef): Promise<Attempted | null> {
    let endedAt: string | undefined;
    try {
      return await attemptDelivery(deps, ref, {
        slots,
        onEnd(endpointId) {
          endedAt = endpointId;
          // What waited because as many were claimed of this endpoint as may be.
          if (turns.ended(endpointId)) deps.wake('revocation-webhooks');
        },
      });
    } finally {
      if (endedAt !== undefined) turns.recorded(endedAt);
    }
  }
}

const toClaimed = ({ endpointId, ...claim }: Claim): Claimed => ({ ...claim, group: endpointId });

function report(logger: Logger, { id, attempt }: JobRef, attempted: Attempted) {
  const { outcome, endpointId, eventSeq, status, error, cause, disabled } = attempted;
  if (disabled) logger.warn({ endpointId, reason: disabled }, 'A webhook endpoint was disabled');
  const facts = { deliveryId: id, attempt, endpointId, eventSeq, status, error };
  if (cause) logger.error({ ...facts, err: cause }, 'A webhook could not be made or sent');
  else if (outcome === 'delivered') logger.debug(facts, 'A webhook was delivered');
  else if (outcome === 'failed') logger.info(facts, 'A webhook was not accepted; it is tried again');
  else logger.warn(facts, 'A webhook was not accepted, and will not be tried again');
}
