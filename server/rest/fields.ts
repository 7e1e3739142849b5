/** What the outputs of several nouns share. */
import { z } from 'zod';

/** A schema that the document keeps under a name of its own, and refers to. */
export const named = <T extends z.ZodType>(title: string, schema: T): T => schema.meta({ title });

/** Milliseconds since 1970-01-01 UTC. */
export const at = z.number().int();
export const count = z.number().int();

export const claimsOutput = z.record(z.string(), z.unknown()).nullable();
export const limitOutput = named('RateLimit', z.object({ count, windowSeconds: count })).nullable();
export const rotationOutput = named(
  'RotationPolicy',
  z.object({ periodSeconds: count, atDeadline: z.enum(['warn', 'expire']) }),
).nullable();

/** A page of ours, by cursor. */
export const pageOf = <T extends z.ZodType>(noun: T) =>
  z.object({ data: z.array(noun), nextCursor: z.string().nullable() });

/** A page as Clerk has it, with our cursor besides. */
export const countedPageOf = <T extends z.ZodType>(noun: T) =>
  z.object({ data: z.array(noun), total_count: count, next_cursor: z.string().nullable() });

/** What an id answers once nothing is there any more. */
/** Of a secret key. */
export const role = z.enum(['admin', 'issuer', 'interaction', 'read', 'verify']);

export const deletedOutput = named('Deleted', z.object({ id: z.string(), deleted: z.literal(true) }));

export const acceptedOutput = z.object({ accepted: z.literal(true) });

/** An input without fields. */
export const nothing = z.strictObject({});

/** What is asked for in pages, as Clerk has it: ten at a time. */
export const clerkLimit = z.number().int().min(1).max(500).default(10);
