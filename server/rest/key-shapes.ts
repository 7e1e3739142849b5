/** Prefixes that the values of API keys may have beside `ak_`. */
import { z } from 'zod';
import {
  createKeyPrefix,
  createKeyPrefixInput,
  deleteKeyPrefix,
  keyPrefixInput,
  listKeyPrefixes,
  listKeyPrefixesInput,
} from '../domain/key-shapes.ts';
import { at, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const keyPrefixOutput = named(
  'KeyPrefix',
  z.object({ prefix: z.string(), description: z.string().nullable(), createdAt: at }),
);

export const keyPrefixRoutes: readonly Route[] = [
  route('POST /v1/key_prefixes', 'keyPrefixes.create', {
    input: createKeyPrefixInput,
    output: keyPrefixOutput,
    run: ({ deps, caller }, input) => createKeyPrefix(deps, caller, input),
  }),
  route('GET /v1/key_prefixes', 'keyPrefixes.list', {
    input: listKeyPrefixesInput,
    output: pageOf(keyPrefixOutput),
    run: ({ deps }, input) => listKeyPrefixes(deps, input),
  }),
  route('DELETE /v1/key_prefixes/{prefix}', 'keyPrefixes.delete', {
    input: keyPrefixInput,
    output: z.object({ prefix: z.string(), deleted: z.literal(true) }),
    run: ({ deps, caller }, input) => deleteKeyPrefix(deps, caller, input),
  }),
];
