/** The job that deletes events whose retention is over. */
import { pruneEvents } from '../server/domain/event-log.ts';
import type { Step } from './schedule.ts';

/** Events that go with one event that says so, and in about two milliseconds. */
const BATCH = 100;

export const eventPrune: Step = async (deps) => {
  const count = await pruneEvents(deps, BATCH);
  return { done: count === 0, cursor: null, count };
};
