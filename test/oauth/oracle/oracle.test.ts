/**
 * Our authorization server against oidc-provider: requests that are sound, wrong in one thing, and wrong in several, to both.
 * The same status, error and claims, or a row of `divergences.ts`, which docs/divergences.md gives with its reason.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeOnEachDialect } from '../../support/deps.ts';
import { AUTHORIZE_VARIATIONS, authorize, authorizeBase } from './authorize.ts';
import { DIVERGENCES, type Difference, differencesOf, OUTCOME } from './divergences.ts';
import { type Applications, type Pair, type Side, startPair } from './pair.ts';
import { askForTokens, CLIENT_VARIATIONS, SOUND, VARIATIONS } from './token.ts';
import { HINTS, introspect, PRESENTED, revoke } from './tokens-told.ts';

type Kind = keyof typeof SOUND;

/** One request, made for either side. */
interface Case {
  endpoint: Difference['endpoint'];
  kind: string;
  wrong: readonly string[];
  /** The same with one thing wrong. */
  alone(wrong: string): Case;
  ask(side: Side, applications: Applications): Promise<object>;
}

const SOUND_REQUEST = 'nothing wrong';

const authorizing = (wrong: readonly string[], signedIn: boolean, method: 'GET' | 'POST'): Case => ({
  endpoint: 'authorize',
  kind: `${method}, signed ${signedIn ? 'in' : 'out'}`,
  wrong,
  alone: (name) => authorizing([name], signedIn, method),
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
  alone: (name) => asking(kind, [name]),
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
  alone: (name) => presenting(endpoint, presented, hint, [name]),
  ask: (side, applications) => {
    const variations = wrong.map((name) => CLIENT_VARIATIONS[name] ?? (() => {}));
    const presentation = { presented, hint, variations };
    return endpoint === 'introspect'
      ? introspect(side, applications, presentation)
      : revoke(side, applications, presentation);
  },
});

/** In what the two answer otherwise. */
async function differencesIn(pair: Pair, { ask, ...about }: Case): Promise<Difference[]> {
  await pair.forgetLimits();
  const [ours, oracle] = pair.sides;
  const outcomes = [await ask(ours, pair.applications), await ask(oracle, pair.applications)] as const;
  return differencesOf(...outcomes).map((difference) => ({ ...about, ...difference }));
}

const KNOWN: readonly Case[] = [
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
  asking('code', ['grant_type unknown', 'redirect_uri twice']),
];

const SOUND_ONES: readonly Case[] = [
  ...(Object.keys(SOUND) as Kind[]).map((kind) => asking(kind, [SOUND_REQUEST])),
  ...Object.keys(PRESENTED).map((name) => presenting('introspect', name, undefined, [SOUND_REQUEST])),
  presenting('revoke', 'access token', undefined, [SOUND_REQUEST]),
];

/** What no divergence explains, as a line each. */
const unexplained = (differences: readonly Difference[]): string[] =>
  differences
    .filter((difference) => !DIVERGENCES.some((row) => row.explains(difference)))
    .map(({ endpoint, kind, wrong, field, ours, oracle }) =>
      [endpoint, kind, wrong.join(' and '), field, `ours ${ours}`, `oracle ${oracle}`].join(' | '),
    );

interface Walked {
  unexplained: readonly string[];
  /** The rows that explained something. */
  met: ReadonlySet<string>;
  /** What went wrong inside of ours. */
  failures: readonly unknown[];
}

async function walk(format: 'opaque' | 'jwt', cases: readonly Case[]): Promise<Walked> {
  const pair = await startPair('sqlite', format);
  const differences: Difference[] = [];
  for (const each of cases) differences.push(...(await differencesIn(pair, each)));
  return {
    unexplained: unexplained(differences),
    met: new Set(DIVERGENCES.filter((row) => differences.some(row.explains)).map(({ what }) => what)),
    failures: pair.failures,
  };
}

const once = <T>(make: () => Promise<T>) => {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
};

describe('beside oidc-provider', () => {
  const TIMEOUT = { timeout: 600_000 };
  const walkKnown = once(() => walk('opaque', KNOWN));
  const walkJwts = once(() => walk('jwt', SOUND_ONES));

  it(
    'answers what is sound, and what is wrong in one thing, alike but for what is listed',
    TIMEOUT,
    async () => expect(await walkKnown()).toMatchObject({ unexplained: [], failures: [] }),
  );

  it('answers JWTs with the same claims', TIMEOUT, async () =>
    expect(await walkJwts()).toMatchObject({ unexplained: [], failures: [] }),
  );

  it('lists nothing that is not so, and gives a reason for each', TIMEOUT, async () => {
    const met = new Set([...(await walkKnown()).met, ...(await walkJwts()).met]);
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
      fc.uniqueArray(fc.constantFrom(...names.filter((name) => name !== SOUND_REQUEST)), {
        minLength: 1,
        maxLength: 3,
      });

    function cases(): fc.Arbitrary<Case> {
      const methods = fc.constantFrom('GET' as const, 'POST' as const);
      return fc.oneof(
        fc
          .tuple(several(Object.keys(AUTHORIZE_VARIATIONS)), fc.boolean(), methods)
          .map(([wrong, signedIn, method]) => authorizing(wrong, signedIn, method)),
        ...(Object.keys(SOUND) as Kind[]).map((kind) =>
          several(Object.keys(VARIATIONS[kind])).map((wrong) => asking(kind, wrong)),
        ),
        ...(['introspect', 'revoke'] as const).map((endpoint) =>
          fc
            .tuple(
              fc.constantFrom(...Object.keys(PRESENTED)),
              fc.constantFrom(...HINTS),
              several(Object.keys(CLIENT_VARIATIONS)),
            )
            .map(([name, hint, wrong]) => presenting(endpoint, name, hint, wrong)),
        ),
      );
    }

    /** What ends otherwise by itself says nothing of several together, and is explained by itself. */
    async function unexplainedIn(pair: Pair, each: Case): Promise<string[]> {
      const found = unexplained(await differencesIn(pair, each));
      if (found.length === 0 || each.wrong.length === 1) return found;
      for (const name of each.wrong) {
        const differences = await differencesIn(pair, each.alone(name));
        if (differences.some(({ field }) => OUTCOME.includes(field))) return unexplained(differences);
      }
      return found;
    }

    it.each([
      ['opaque', 80],
      ['jwt', 40],
    ] as const)(
      'a request is refused where the other refuses it, by the same way, and answered with the same: %s',
      TIMEOUT,
      async (format, numRuns) => {
        const pair = await startPair(dialect, format);
        await fc.assert(
          fc.asyncProperty(cases(), async (each) => {
            expect(await unexplainedIn(pair, each)).toEqual([]);
          }),
          { numRuns, interruptAfterTimeLimit: 120_000 },
        );
        expect(pair.failures).toEqual([]);
      },
    );
  });
});
