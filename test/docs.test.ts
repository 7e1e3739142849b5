import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { errorsPage } from '../scripts/errors-page.ts';
import { eventsPage } from '../scripts/events-page.ts';
import { fieldsOf, verifyPage } from '../scripts/verify-page.ts';
import { createApiKey, createApiKeyInput } from '../server/domain/api-keys.ts';
import { VERIFY_REASONS } from '../server/domain/credentials.ts';
import { EVENT_TYPES } from '../server/domain/event-types.ts';
import { createM2mToken, createM2mTokenInput } from '../server/domain/m2m-tokens.ts';
import { call } from './support/calls.ts';
import { callerWith, openTestDeps } from './support/deps.ts';
import { allow, newMachine } from './support/machines.ts';

const page = (name: string) => readFileSync(new URL(`../docs/${name}.md`, import.meta.url), 'utf8');

it('docs/errors.md lists the codes of server/errors.ts: `npm run docs` writes it', () => {
  expect(page('errors')).toBe(errorsPage());
});

describe('docs/events.md', () => {
  it('is what `npm run docs` writes', () => {
    expect(page('events')).toBe(eventsPage());
  });

  it.each(Object.entries(EVENT_TYPES))(
    'has an example of %s with the fields that it has',
    (_, { payload, example }) => {
      const { objectId: __, subject: ___, ...own } = example;
      const names = Object.keys(payload);
      const always = names.filter((name) => !name.endsWith('?'));
      expect(Object.keys(own)).toEqual(expect.arrayContaining(always));
      expect(names.map((name) => name.replace('?', ''))).toEqual(expect.arrayContaining(Object.keys(own)));
    },
  );
});

describe('docs/verify.md', () => {
  it('is what `npm run docs` writes', () => {
    expect(page('verify')).toBe(verifyPage());
  });

  it('lists the reasons in their order of precedence', () => {
    const [, reasons = ''] = page('verify').split('## Not valid');
    expect([...reasons.matchAll(/^\| `(\w+)` \|/gm)].map(([, reason]) => reason)).toEqual([
      ...VERIFY_REASONS,
    ]);
  });

  it('lists the fields that answers have', async () => {
    const deps = await openTestDeps('sqlite');
    const ledger = await newMachine(deps, 'ledger', { mayVerify: true });
    const billing = await newMachine(deps, 'billing');
    await allow(deps, billing.id, ledger.id);
    const { token } = await createM2mToken(deps, billing.caller, createM2mTokenInput.parse({}));
    const input = createApiKeyInput.parse({ name: 'ci', subject: 'user_1' });
    const { secret } = await createApiKey(deps, callerWith('admin'), input);
    for (const [kind, credential] of [
      ['m2m_token', token],
      ['api_key', secret],
    ] as const) {
      const answer = await call(deps, ledger.secret, 'credentials.verify', { credential });
      expect(answer).toMatchObject({ valid: true, kind });
      expect(fieldsOf(kind)).toEqual(expect.arrayContaining(Object.keys(answer as object)));
    }
  });

  it('has examples with fields that there are', () => {
    const examples = [...page('verify').matchAll(/```json\n([\s\S]+?)\n```/g)].map(([, text = '']) =>
      JSON.parse(text),
    );
    const valid = examples.filter((example) => example.valid);
    expect(valid.map(({ kind }) => kind)).toEqual(['m2m_token', 'api_key', 'oauth_token']);
    for (const example of valid) expect(Object.keys(example).sort()).toEqual(fieldsOf(example.kind).sort());
    expect(VERIFY_REASONS).toContain(examples.find((example) => !example.valid).reason);
  });
});
