/** What tests ask of the log: that it has no gap, that every event is chained to the one before, and is what its type says. */
import { asc } from 'drizzle-orm';
import { expect } from 'vitest';
import { z } from 'zod';
import type { Deps } from '../../server/deps.ts';
import { ACTOR_KINDS, EVENT_TYPES, type EventType } from '../../server/domain/event-types.ts';
import { chainHash, listEvents } from '../../server/domain/events.ts';
import { webhookBodyOf } from '../../server/domain/webhook-messages.ts';

/** Computes the chain anew from the beginning; answers how many events there are. */
export async function expectChained({ store, keyring }: Pick<Deps, 'store' | 'keyring'>): Promise<number> {
  const { db, tables } = store.read;
  const rows = await db.select().from(tables.events).orderBy(asc(tables.events.seq));
  let previous: Buffer = Buffer.alloc(32);
  for (const [i, row] of rows.entries()) {
    expect(row.seq).toBe(i + 1);
    previous = chainHash(keyring.log, previous, row);
    expect(row.hash).toEqual(previous);
  }
  expect(await db.select().from(tables.eventHead)).toMatchObject([{ seq: rows.length, hash: previous }]);
  return rows.length;
}

const instant = z.int().min(0);
const HELD = {
  string: z.string(),
  'string[]': z.array(z.string()),
  number: z.number(),
  boolean: z.boolean(),
  instant,
  object: z.record(z.string(), z.unknown()),
  'string | null': z.string().nullable(),
  'instant | null': instant.nullable(),
  'object | null': z.record(z.string(), z.unknown()).nullable(),
};

/** The fields of a type's own, no others. */
export const fieldsOf = (type: EventType) =>
  z.strictObject(
    Object.fromEntries(
      Object.entries(EVENT_TYPES[type].payload).map(([name, held]) =>
        name.endsWith('?') ? [name.slice(0, -1), HELD[held].optional()] : [name, HELD[held]],
      ),
    ),
  );

/** Holds what webhook endpoints are sent of every event to what `EVENT_TYPES` says of its type. */
export async function expectAsDescribed(deps: Deps): Promise<void> {
  for (let after = 0; ; ) {
    const { data, nextAfter } = await listEvents(deps, { after, limit: 500 });
    for (const event of data) {
      const { eventId, sequence, objectId, subject, actor, ...own } = JSON.parse(webhookBodyOf(event)).data;
      expect({ type: event.type, ...fieldsOf(event.type).safeParse(own) }).toMatchObject({ success: true });
      expect(ACTOR_KINDS).toContain(actor.kind);
      expect([eventId, sequence, objectId, subject]).toEqual([
        event.id,
        event.seq,
        event.objectId,
        event.subject,
      ]);
    }
    if (data.length === 0) return;
    after = nextAfter;
  }
}
