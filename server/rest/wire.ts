/** What a schema of ours is called on the wire: snake case, at every depth where the schema names its fields. */
import { z } from 'zod';
import { CountersignError } from '../errors.ts';

/** As much of JSON Schema as zod makes of our schemas. */
export interface JsonSchema {
  type?: string;
  title?: string;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  enum?: unknown[];
  additionalProperties?: boolean | JsonSchema;
  [keyword: string]: unknown;
}

/** Names that differ from ours in more than their case; `as is` where the wire has our own. */
export type Naming = Readonly<Record<string, string>> | 'as is';

export interface Wire {
  /** In the names of the wire. */
  schema(): JsonSchema;
  /**
   * A value of the wire in our names; what the schema has no field for is kept for it to refuse. Throws `invalid_input`
   * for names of ours that the wire does not have.
   */
  toOwn(value: unknown): unknown;
  /** A value of ours in the names of the wire, with the fields that the schema has and no others. */
  toWire(value: unknown): unknown;
  /** What a field of the schema is called there; what is none stays as it is. */
  nameOf(name: string): string;
}

/** The header that carries an idempotency key: it is no field of a body. */
export const IDEMPOTENCY_HEADER = 'Idempotency-Key';

/** Made when first asked for: most routes of a process are never called. */
export function wireOf(schema: z.ZodType, io: 'input' | 'output', naming: Naming = {}): Wire {
  const nameOf = (field: string) => {
    if (naming === 'as is') return field;
    if (field === 'idempotencyKey') return IDEMPOTENCY_HEADER;
    return naming[field] ?? toSnake(field);
  };
  let own: JsonSchema | undefined;
  let fields: Set<string> | undefined;
  let wire: JsonSchema | undefined;
  const ownSchema = () => {
    own ??= toJsonSchema(schema, io);
    return own;
  };
  return {
    schema() {
      wire ??= renamed(ownSchema(), nameOf);
      return wire;
    },
    toOwn: (value) => toOwn(value, ownSchema(), nameOf),
    toWire: (value) => toWire(value, ownSchema(), nameOf),
    nameOf(name) {
      fields ??= new Set(fieldsOf(ownSchema()));
      return fields.has(name) ? nameOf(name) : name;
    },
  };
}

function fieldsOf({ properties = {}, items, anyOf = [] }: JsonSchema): string[] {
  const inner = [...Object.values(properties), ...(items ? [items] : []), ...anyOf];
  return [...Object.keys(properties), ...inner.flatMap(fieldsOf)];
}

const toSnake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function toJsonSchema(schema: z.ZodType, io: 'input' | 'output'): JsonSchema {
  const {
    $schema: _,
    $defs: __,
    ...json
  } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      // Says where a command line takes it.
      delete jsonSchema['positional'];
    },
  }) as JsonSchema;
  return withoutReferences(json);
}

/** Only of JSON itself does zod define something apart: any value will do. */
function withoutReferences<T>(schema: T): T {
  if (typeof schema !== 'object' || schema === null) return schema;
  if (Array.isArray(schema)) return schema.map(withoutReferences) as T;
  if ('$ref' in schema) return {} as T;
  return Object.fromEntries(
    Object.entries(schema).map(([keyword, value]) => [keyword, withoutReferences(value)]),
  ) as T;
}

type NameOf = (field: string) => string;

function renamed(schema: JsonSchema, nameOf: NameOf): JsonSchema {
  const { properties, required, items, anyOf } = schema;
  return {
    ...schema,
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([field, inner]) => [nameOf(field), renamed(inner, nameOf)]),
      ),
    }),
    ...(required && { required: required.map(nameOf) }),
    ...(items && { items: renamed(items, nameOf) }),
    ...(anyOf && { anyOf: anyOf.map((branch) => renamed(branch, nameOf)) }),
  };
}

function toOwn(value: unknown, schema: JsonSchema, nameOf: NameOf): unknown {
  const { properties, items } = branchFor(value, schema);
  if (Array.isArray(value)) return items ? value.map((each) => toOwn(each, items, nameOf)) : value;
  if (!isRecord(value) || !properties) return value;
  const fields = new Map(Object.keys(properties).map((field) => [nameOf(field), field]));
  const own = Object.entries(value).map(([name, inner]) => {
    const field = fields.get(name);
    if (field === undefined && Object.hasOwn(properties, name)) throw unknownField(name);
    return [field ?? name, field === undefined ? inner : toOwn(inner, properties[field] ?? {}, nameOf)];
  });
  return Object.fromEntries(own);
}

function toWire(value: unknown, schema: JsonSchema, nameOf: NameOf): unknown {
  const { properties, items } = branchFor(value, schema);
  if (Array.isArray(value)) return items ? value.map((each) => toWire(each, items, nameOf)) : value;
  if (!isRecord(value) || !properties) return value;
  const present = Object.entries(properties).filter(([field]) => value[field] !== undefined);
  return Object.fromEntries(
    present.map(([field, inner]) => [nameOf(field), toWire(value[field], inner, nameOf)]),
  );
}

/** Of several, the one that a value of this type may be. */
function branchFor(value: unknown, schema: JsonSchema): JsonSchema {
  if (!schema.anyOf) return schema;
  const type = Array.isArray(value) ? 'array' : 'object';
  return schema.anyOf.find((branch) => branch.type === type) ?? {};
}

const unknownField = (name: string) =>
  new CountersignError('invalid_input', `Cannot accept the input: wanted no other fields, found '${name}'`, {
    field: name,
  });

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
