/** The job that sends events to webhook endpoints, revocations first. */
import type { Deps } from '../server/deps.ts';
import { claimDeliveries, Turns } from '../server/domain/deliveries.ts';
import { type Attempted, attemptDelivery } from '../server/domain/delivery-attempts.ts';
import { expandEvents } from '../server/domain/delivery-expansion.ts';
import type { Logger } from '../server/logger.ts';
import type { Metrics } from '../server/metrics.ts';
import type { Job, JobRef } from './transport.ts';

export function revocationWebhooks(deps: Deps, logger: Logger, metrics: Metrics): Job {
  const turns = new Turns();
  let writtenOut = -1;
  return {
    name: 'revocation-webhooks',
    async claim(limit) {
      // All of the log first: a revocation may be its last event, and goes ahead of everything before it.
      const upTo = await expandEvents(deps);
      if (upTo !== writtenOut) turns.forget();
      writtenOut = upTo;
      return claimDeliveries(deps, limit, turns);
    },
    async run(ref) {
      const attempted = await attemptDelivery(deps, ref);
      if (!attempted) return;
      // What waited because as many attempts at this endpoint were under way as may be.
      if (turns.ended(attempted.endpointId)) deps.wake('revocation-webhooks');
      metrics.delivery(attempted.outcome, attempted);
      report(logger, ref, attempted);
    },
  };
}

function report(logger: Logger, { id, attempt }: JobRef, attempted: Attempted) {
  const { outcome, endpointId, eventSeq, status, error, cause, disabled } = attempted;
  if (disabled) logger.warn({ endpointId, reason: disabled }, 'A webhook endpoint was disabled');
  const facts = { deliveryId: id, attempt, endpointId, eventSeq, status, error };
  if (cause) logger.error({ ...facts, err: cause }, 'A webhook could not be made or sent');
  else if (outcome === 'delivered') logger.debug(facts, 'A webhook was delivered');
  else if (outcome === 'failed') logger.info(facts, 'A webhook was not accepted; it is tried again');
  else logger.warn(facts, 'A webhook was not accepted, and will not be tried again');
}
