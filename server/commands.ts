/** The commands of the command line: one for each procedure of the router, and a few of its own. */
import { type TrpcCliMeta, t } from 'trpc-cli';
import { z } from 'zod';
import { looksLikeJwt, PREFIXES, parseValue } from './crypto/format.ts';
import type { ProcedureMeta } from './trpc/base.ts';
import { appRouter } from './trpc/router.ts';

/** Carries out a procedure on the server. */
export type CallProcedure = (path: string, input: Record<string, unknown>) => Promise<unknown>;

type JsonSchema = { properties?: Record<string, unknown>; required?: string[] } & Record<string, unknown>;
type Command = ReturnType<typeof command>;
type Commands = { [name: string]: Command | Commands };

/** Inputs that are credentials: taken from standard input and never from an argument. */
export const CREDENTIAL_FIELDS: Readonly<Record<string, string>> = {
  'credentials.verify': 'credential',
  'm2mTokens.revokeByValue': 'value',
  'oauthTokens.verify': 'credential',
  'oauthTokens.revokeByValue': 'value',
  'apiKeys.revokeByValue': 'value',
};

/** Commands with another name than their procedure, or none: batches are for programs. */
const NAMES: Readonly<Record<string, string | null>> = {
  'credentials.verify': 'verify',
  'credentials.verifyBatch': null,
  'apiKeys.import': null,
  'machines.import': null,
  'signInLinks.issue': 'console',
};

const EXAMPLES: Readonly<Record<string, string[]>> = {
  'machines.create': [
    'countersign machines create billing',
    'countersign machines create billing --may-verify',
    `countersign machines create billing --rotation '{"periodSeconds":7776000}'`,
  ],
  'machines.list': ['countersign machines list --limit 10', 'countersign machines list --query bill'],
  'machineScopes.create': ['countersign machine-scopes create mch_… mch_… --scopes entries:write'],
  'm2mTokens.create': ['countersign m2m-tokens create --format jwt --ttl-seconds 600'],
  'm2mTokens.revokeByValue': ['countersign m2m-tokens revoke-by-value < token.txt'],
  'oauthTokens.verify': ['countersign oauth-tokens verify --resource https://api.example.com < token.txt'],
  'oauthTokens.revokeByValue': ['countersign oauth-tokens revoke-by-value < token.txt'],
  'apiKeys.create': [
    'countersign api-keys create "nightly export" user_42 --scopes invoices:read',
    'countersign api-keys create trial user_42 --policy-id kp_… --allowed-cidrs 192.0.2.0/24',
  ],
  'apiKeys.setCredits': [
    'countersign api-keys set-credits ak_… --remaining 1000',
    'countersign api-keys set-credits ak_… --remaining 1000 --refill-amount 1000 --refill-interval-seconds 86400',
  ],
  'apiKeys.revokeByValue': ['countersign api-keys revoke-by-value < leaked.txt'],
  'apiKeys.revokeAll': ['countersign api-keys revoke-all org_7 --created-by user_42 --reason owner_left'],
  'oauthGrants.revokeAll': ['countersign oauth-grants revoke-all user_42'],
  'keyPrefixes.create': ['countersign key-prefixes create acme_live_'],
  'keyPolicies.create': [
    'countersign key-policies create standard --is-default --max-ttl-seconds 31536000 --live-keys-max 100',
    `countersign key-policies create trial --allowed-scopes invoices:read --rate-limit '{"count":60,"windowSeconds":60}'`,
  ],
  'subjects.set': [`countersign subjects set user_42 --rate-limit '{"count":600,"windowSeconds":60}'`],
  'subjects.disable': ['countersign subjects disable user_42'],
  'users.invite': [
    'countersign users invite --email ada@example.com --name "Ada Lovelace"',
    'countersign users invite --user-id user_… --ttl-seconds 3600',
  ],
  'userSessions.endAll': ['countersign user-sessions end-all user_…'],
  'usage.ofSubjects': ['countersign usage of-subjects user_42 --granularity hour'],
  'credentials.verify': [
    'countersign verify < key.txt',
    'countersign verify --scopes invoices:read --kinds api_key < key.txt',
  ],
};

interface RouterProcedure {
  _def: { type: 'query' | 'mutation'; inputs: z.ZodType[]; meta?: ProcedureMeta };
}

/** The router's procedures as commands, with `own` besides them, by their paths. Not a tRPC router: in those no name may be `apply`. */
export function commandRouter(call: CallProcedure, own: Record<string, Command>) {
  const commands: Commands = {};
  const procedures = appRouter._def.procedures as unknown as Record<string, RouterProcedure>;
  for (const [path, procedure] of Object.entries(procedures)) {
    const name = NAMES[path] === undefined ? path : NAMES[path];
    if (name !== null) place(commands, name.split('.'), procedureCommand(path, procedure, call));
  }
  for (const [path, leaf] of Object.entries(own)) place(commands, path.split('.'), leaf);
  return t.router(commands);
}

function procedureCommand(path: string, { _def }: RouterProcedure, call: CallProcedure): Command {
  const examples = EXAMPLES[path];
  const meta = { description: _def.meta?.description ?? '', ...(examples && { examples }) };
  return command(meta, inputSchema(_def.inputs[0], CREDENTIAL_FIELDS[path]), (input) => call(path, input));
}

/** A command, whose input the server judges: `schema` only says which arguments and options there are. */
export function command(
  meta: TrpcCliMeta,
  schema: JsonSchema,
  run: (input: Record<string, unknown>) => Promise<unknown>,
) {
  const unchecked = {
    '~standard': {
      vendor: 'countersign',
      version: 1 as const,
      validate: (value: unknown) => ({ value: value as Record<string, unknown> }),
    },
    toJsonSchema: () => schema,
  };
  return t.procedure
    .meta(meta)
    .input(unchecked)
    .mutation(({ input }) => run(input));
}

/** What a command takes, as JSON Schema, without the field that holds a credential. */
export function inputSchema(schema: z.ZodType | undefined, credentialField?: string): JsonSchema {
  if (!schema) return { type: 'object', properties: {} };
  const json = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema._zod.def.type === 'optional') Object.assign(jsonSchema, { optional: true });
      // `null` cannot be typed at a shell; with it in the type, a text would have to be typed as JSON.
      const [only, ...more] = jsonSchema.anyOf?.filter((branch) => branch.type !== 'null') ?? [];
      if (only === undefined || more.length > 0) return;
      delete jsonSchema.anyOf;
      Object.assign(jsonSchema, only);
    },
  }) as JsonSchema;
  if (credentialField === undefined) return json;
  const { [credentialField]: _, ...properties } = json.properties ?? {};
  return { ...json, properties, required: json.required?.filter((field) => field !== credentialField) ?? [] };
}

function place(commands: Commands, [name = '', ...rest]: string[], leaf: Command): void {
  if (rest.length === 0) {
    commands[name] = leaf;
    return;
  }
  const group = (commands[name] ?? {}) as Commands;
  commands[name] = group;
  place(group, rest, leaf);
}

/** Whether a credential stands anywhere in an argument. First keys of an operator's choice have no checksum. */
export function holdsCredential(argument: string): boolean {
  const words = argument.match(/[A-Za-z0-9_.-]+/g) ?? [];
  return words.some((word) => parseValue(word) !== null || looksLikeJwt(word) || looksLikeKey(word));
}

const looksLikeKey = (word: string) =>
  [PREFIXES.secretKey, PREFIXES.machineSecretKey].some((prefix) =>
    new RegExp(`^${prefix}[A-Za-z0-9_]{40,}$`).test(word),
  );
