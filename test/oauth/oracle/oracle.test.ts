/**
 * Our authorization server against oidc-provider: requests that are sound, wrong in one thing, and wrong in several, to both.
 * The same status, error and claims, or a row of `divergences.ts`, which docs/divergences.md gives with its reason.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeOnEachDialect } from '../../support/deps.ts';
import { AUTHORIZE_VARIATIONS, authorize, authorizeBase } from './authorize.ts';
import { DIVERGENCES, type Difference, differencesOf } from './divergences.ts';
import { type Applications, type Pair, type Side, startPair } from './pair.ts';
import { askForTokens, CLIENT_VARIATIONS, SOUND, VARIATIONS } from './token.ts';
import { HINTS, introspect, PRESENTED, revoke } from './tokens-told.ts';

type Kind = keyof typeof SOUND;

/** One request, made for either side. */
interface Case {
  endpoint: Difference['endpoint'];
  kind: string;
  wrong: readonly string[];
  ask(side: Side, applications: Applications): Promise<object>;
}

const SOUND_REQUEST = 'nothing wrong';

const authorizing = (wrong: readonly string[], signedIn: boolean, method: 'GET' | 'POST'): Case => ({
  endpoint: 'authorize',
  kind: `${method}, signed ${signedIn ? 'in' : 'out'}`,
  wrong,
  ask: (side, applications) => {
    const params = authorizeBase(applications);
    for (const name of wrong) AUTHORIZE_VARIATIONS[name]?.(params, applications);
    return authorize(side, params, { signedIn, method });
  },
});

const asking = (kind: Kind, wrong: readonly string[]): Case => ({
  endpoint: 'token',
  kind,
  wrong,
  ask: (side, applications) =>
    askForTokens(
      side,
      applications,
      kind,
      wrong.map((name) => VARIATIONS[kind][name] ?? (() => {})),
    ),
});

const presenting = (
  endpoint: 'introspect' | 'revoke',
  presented: string,
  hint: (typeof HINTS)[number],
  wrong: readonly string[],
): Case => ({
  endpoint,
  kind: presented,
  wrong,
  ask: (side, applications) => {
    const variations = wrong.map((name) => CLIENT_VARIATIONS[name] ?? (() => {}));
    const presentation = { presented, hint, variations };
    return endpoint === 'introspect'
      ? introspect(side, applications, presentation)
      : revoke(side, applications, presentation);
  },
});

async function differencesIn(pair: Pair, { ask, ...about }: Case): Promise<Difference[]> {
  await pair.forgetLimits();
  const [ours, oracle] = pair.sides;
  const outcomes = [await ask(ours, pair.applications), await ask(oracle, pair.applications)] as const;
  return differencesOf(...outcomes).map((difference) => ({ ...about, ...difference }));
}

const SINGLE_FAULTS: readonly Case[] = [
  ...Object.keys(AUTHORIZE_VARIATIONS).flatMap((name) => [
    authorizing([name], true, 'GET'),
    authorizing([name], false, 'GET'),
  ]),
  authorizing([SOUND_REQUEST], true, 'POST'),
  ...(Object.keys(SOUND) as Kind[]).flatMap((kind) =>
    Object.keys(VARIATIONS[kind]).map((name) => asking(kind, [name])),
  ),
  ...(['introspect', 'revoke'] as const).flatMap((endpoint) => [
    ...Object.keys(PRESENTED).map((name) => presenting(endpoint, name, undefined, [SOUND_REQUEST])),
    ...HINTS.map((hint) => presenting(endpoint, 'access token', hint, [SOUND_REQUEST])),
    ...HINTS.map((hint) => presenting(endpoint, 'refresh token', hint, [SOUND_REQUEST])),
    ...Object.keys(CLIENT_VARIATIONS).map((name) => presenting(endpoint, 'access token', undefined, [name])),
  ]),
];

/** What no divergence explains, as a line each. */
const unexplained = (differences: readonly Difference[]): string[] =>
  differences
    .filter((difference) => !DIVERGENCES.some((row) => row.explains(difference)))
    .map(({ endpoint, kind, wrong, field, ours, oracle }) =>
      [endpoint, kind, wrong.join(' and '), field, `ours ${ours}`, `oracle ${oracle}`].join(' | '),
    );

describe('beside oidc-provider', () => {
  const TIMEOUT = { timeout: 600_000 };
  /** Differences of requests that are wrong in one thing, by endpoint and what is wrong: filled by the first test. */
  const diverging = new Set<string>();
  const met = new Set<string>();

  it(
    'answers what is sound, and what is wrong in one thing, alike but for what is listed',
    TIMEOUT,
    async () => {
      const pair = await startPair('sqlite', 'opaque');
      const found: string[] = [];
      for (const each of SINGLE_FAULTS) {
        const differences = await differencesIn(pair, each);
        found.push(...unexplained(differences));
        if (differences.length > 0) for (const name of each.wrong) diverging.add(`${each.endpoint} ${name}`);
        for (const { what, explains } of DIVERGENCES) if (differences.some(explains)) met.add(what);
      }
      expect(found).toEqual([]);
      expect(pair.failures).toEqual([]);
    },
  );

  it('answers JWTs with the same claims', TIMEOUT, async () => {
    const pair = await startPair('sqlite', 'jwt');
    const found: string[] = [];
    const sound = [
      ...(Object.keys(SOUND) as Kind[]).map((kind) => asking(kind, [SOUND_REQUEST])),
      ...Object.keys(PRESENTED).map((name) => presenting('introspect', name, undefined, [SOUND_REQUEST])),
      presenting('revoke', 'access token', undefined, [SOUND_REQUEST]),
    ];
    for (const each of sound) {
      const differences = await differencesIn(pair, each);
      found.push(...unexplained(differences));
      for (const { what, explains } of DIVERGENCES) if (differences.some(explains)) met.add(what);
    }
    expect(found).toEqual([]);
  });

  it('lists nothing that is not so, and gives a reason for each', () => {
    expect(DIVERGENCES.map(({ what }) => what).filter((what) => !met.has(what))).toEqual([]);
    const page = readFileSync(new URL('../../../docs/divergences.md', import.meta.url), 'utf8');
    const [, section = ''] = page.split('## Beside oidc-provider');
    const rows = section
      .split('\n')
      .filter((line) => line.startsWith('| ') && !/^\| (request|---)/.test(line))
      .map((line) => line.split(' | '));
    expect(rows.map(([what = '']) => what.slice(2)).sort()).toEqual(
      DIVERGENCES.map(({ what }) => what).sort(),
    );
    expect(rows.filter((row) => row.length !== 4)).toEqual([]);
  });

  describeOnEachDialect('wrong in several things at once,', (dialect) => {
    /** Of these names some, or one, each once, in any order. */
    const several = (names: readonly string[]) =>
      fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 3 });

    /** The names of what diverges by itself say nothing of several together. */
    const alike = (endpoint: Difference['endpoint'], names: readonly string[]) =>
      names.filter((name) => name !== SOUND_REQUEST && !diverging.has(`${endpoint} ${name}`));

    function cases() {
      const methods = fc.constantFrom('GET' as const, 'POST' as const);
      return fc.oneof(
        fc
          .tuple(several(alike('authorize', Object.keys(AUTHORIZE_VARIATIONS))), fc.boolean(), methods)
          .map(([wrong, signedIn, method]) => authorizing(wrong, signedIn, method)),
        ...(Object.keys(SOUND) as Kind[]).map((kind) =>
          several(alike('token', Object.keys(VARIATIONS[kind]))).map((wrong) => asking(kind, wrong)),
        ),
        ...(['introspect', 'revoke'] as const).map((endpoint) =>
          fc
            .tuple(
              fc.constantFrom(...Object.keys(PRESENTED)),
              fc.constantFrom(...HINTS),
              several(alike(endpoint, Object.keys(CLIENT_VARIATIONS))),
            )
            .map(([name, hint, wrong]) => presenting(endpoint, name, hint, wrong)),
        ),
      );
    }

    it(
      'a request is refused where the other refuses it, by the same way, and answered with the same',
      TIMEOUT,
      async () => {
        const pair = await startPair(dialect, 'opaque');
        await fc.assert(
          fc.asyncProperty(cases(), async (each) => {
            const differences = await differencesIn(pair, each);
            // Which of several is told first is an order that no standard has, and of what is told the status is.
            const isOrder = ({ wrong, field, ours, oracle }: Difference) =>
              wrong.length > 1 && field === 'error' && ours !== null && oracle !== null;
            expect(unexplained(differences.filter((difference) => !isOrder(difference)))).toEqual([]);
          }),
          { numRuns: 120, interruptAfterTimeLimit: 240_000 },
        );
        expect(pair.failures).toEqual([]);
      },
    );
  });
});
