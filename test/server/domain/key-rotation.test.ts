import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import { createSigner, listSigningKeys, rotateSigningKeys } from '../../../server/domain/signing-keys.ts';
import { call } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps } from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';
import { allow, newMachine } from '../../support/machines.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

describeOnEachDialect('rotateSigningKeys()', (dialect) => {
  it('over 70 days, by several processes: each key is published a day before it signs, and retired after its last token', async () => {
    const deps = await openTestDeps(dialect);
    const others = [deps, { ...deps, signer: createSigner(deps.store, deps.keyring) }];
    const from = await newMachine(deps, 'from');
    const to = await newMachine(deps, 'to');
    await allow(deps, from.id, to.id);
    const began = deps.clock.now;
    /** Tokens, and until when they live. */
    let living: { token: string; until: number }[] = [];
    const published = new Map<string, number>();
    while (deps.clock.now < began + 70 * DAY) {
      await Promise.all(others.map((each) => rotateSigningKeys(each)));
      deps.signer.forget();
      for (const { kid } of (await deps.signer.jwks()).keys)
        if (!published.has(kid ?? '')) published.set(kid ?? '', deps.clock.now);
      const ttlSeconds = 2 * 86_400;
      const { token = '' } = await createM2mToken(
        deps,
        from.caller,
        createM2mTokenInput.parse({ format: 'jwt', ttlSeconds }),
      );
      living = [...living, { token, until: deps.clock.now + ttlSeconds * 1000 - 1000 }].filter(
        ({ until }) => until > deps.clock.now,
      );
      const oldest = living[0]?.token ?? '';
      expect(
        await call(deps, deps.adminKey, 'credentials.verify', { credential: oldest, audience: to.id }),
      ).toMatchObject({ valid: true });
      deps.clock.now += 6 * HOUR;
    }
    const keys = await listSigningKeys(deps);
    expect(keys.map(({ state }) => state)).toEqual(['active', 'retired', 'retired']);
    for (const { kid, activatedAt } of keys.slice(0, -1))
      expect((activatedAt ?? 0) - (published.get(kid) ?? 0)).toBeGreaterThanOrEqual(DAY);
    const [second, first] = [keys[1], keys[2]];
    expect(((second?.activatedAt ?? 0) - began) / DAY).toBe(30);
    expect((first?.retiredAt ?? 0) - (second?.activatedAt ?? 0)).toBeGreaterThanOrEqual(1.5 * DAY);
    const { data } = await listEvents(deps, { after: 0, limit: 500 });
    const rotations = data.map(({ type }) => type).filter((type) => type.startsWith('signing_key.'));
    const one = ['signing_key.created', 'signing_key.activated', 'signing_key.retired'];
    expect(rotations).toEqual([...one, ...one]);
    await expectChained(deps);
  });
});
