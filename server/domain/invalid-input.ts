/** What is wrong with an input that a schema refuses, in our words. */
import type { z } from 'zod';
import { CountersignError } from '../errors.ts';

interface Invalid {
  message: string;
  /** The field at fault, as a dotted path. */
  field: string | undefined;
}

/** The first thing wrong with an input, naming what was wanted and the shape, never the content, of what was found. */
export function describeInvalid(error: z.ZodError, input: unknown): Invalid {
  const [first] = error.issues;
  if (!first) return { message: 'The input is not as wanted', field: undefined };
  const issue = narrow(first);
  const field = issue.path.map(shown).join('.') || undefined;
  const place = field === undefined ? 'the input' : `'${field}'`;
  const found =
    issue.code === 'unrecognized_keys'
      ? issue.keys.slice(0, KEYS_SHOWN_MAX).map(quoted).join(', ')
      : shapeOf(valueAt(input, issue));
  return {
    message: `Cannot accept ${place}: wanted ${wantedBy(issue)}, found ${found}`,
    field: issue.code === 'unrecognized_keys' ? unknownField(issue) : field,
  };
}

/** The input as its schema has it; throws `invalid_input`, for whoever knows the input where the refusal is told no more. */
export function acceptInput<Output>(schema: z.ZodType<Output>, input: object): Output {
  const { data, error } = schema.safeParse(input);
  if (!error) return data;
  const { message, field } = describeInvalid(error, input);
  throw new CountersignError('invalid_input', message, { field });
}

type Issue = z.core.$ZodIssue;

/** Of a union, what was wrong in the alternative that the input came nearest to. */
function narrow(issue: Issue): Issue {
  if (issue.code !== 'invalid_union') return issue;
  const nearest = issue.errors
    .map(([first]) => first)
    .find((first) => first && (first.code !== 'invalid_type' || first.path.length > 0));
  return nearest ? narrow({ ...nearest, path: [...issue.path, ...nearest.path] }) : issue;
}

/** Schemas say themselves what they want, in words that begin so; for all else zod's issue is put into ours. */
const OUR_WORDS = 'wanted ';

function wantedBy(issue: Issue): string {
  if (issue.message.startsWith(OUR_WORDS)) return issue.message.slice(OUR_WORDS.length);
  switch (issue.code) {
    case 'invalid_type':
      return TYPES[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return oneOf(issue.values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value))));
    case 'too_big':
      return `${issue.exact ? 'exactly' : issue.inclusive ? 'at most' : 'less than'} ${amount(issue.maximum, issue.origin)}`;
    case 'too_small':
      return `${issue.exact ? 'exactly' : issue.inclusive ? 'at least' : 'more than'} ${amount(issue.minimum, issue.origin)}`;
    case 'invalid_format':
      return `text of the format '${issue.format}'`;
    case 'not_multiple_of':
      return `a multiple of ${issue.divisor}`;
    case 'unrecognized_keys':
      return 'no other fields';
    case 'invalid_key': {
      const [first] = issue.issues;
      return first ? `a name that is ${wantedBy(first)}` : 'another name';
    }
    case 'invalid_union':
      return oneOf(issue.errors.flatMap(([first]) => (first ? [wantedBy(first)] : [])));
    default:
      return 'something else';
  }
}

const TYPES: Record<string, string> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

const UNITS: Record<string, string> = { string: 'character', array: 'item', record: 'entry' };

function amount(limit: number | bigint, origin: string): string {
  const unit = UNITS[origin];
  return unit === undefined ? `${limit}` : count(Number(limit), unit);
}

const count = (number: number, unit: string) => `${number} ${unit}${number === 1 ? '' : 's'}`;

function oneOf(alternatives: readonly string[]): string {
  const distinct = [...new Set(alternatives)];
  return distinct.length > 1 ? `one of ${distinct.join(', ')}` : (distinct[0] ?? 'something else');
}

const KEYS_SHOWN_MAX = 5;
const KEY_LENGTH_MAX = 64;

/** A part of a path. Some are names of the caller's choosing, so they are cut, and shown only if they print. */
function shown(key: PropertyKey): string {
  const text = String(key);
  return /^[\x20-\x7e]*$/.test(text) ? text.slice(0, KEY_LENGTH_MAX) : '(unprintable)';
}

const quoted = (key: string) => `'${shown(key)}'`;

function unknownField(issue: z.core.$ZodIssueUnrecognizedKeys): string {
  return [...issue.path, issue.keys[0] ?? ''].map(shown).join('.');
}

/** Where a name is at fault and not what it names, the name. */
function valueAt(input: unknown, issue: Issue): unknown {
  if (issue.code === 'invalid_key') return issue.path.at(-1);
  let value = input;
  for (const key of issue.path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function shapeOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (typeof value === 'string') return `text of ${count(value.length, 'character')}`;
  if (Array.isArray(value)) return `a list of ${count(value.length, 'item')}`;
  return typeof value === 'number' || typeof value === 'boolean' ? `${value}` : 'an object';
}
