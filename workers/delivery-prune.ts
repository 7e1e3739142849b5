/** The job that deletes what became of deliveries long ago. */
import { pruneDeliveries } from '../server/domain/delivery-retention.ts';
import type { Step } from './schedule.ts';

export const deliveryPrune: Step = (deps, cursor) => pruneDeliveries(deps, cursor);
