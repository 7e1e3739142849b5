import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { CountersignError, type VerifyInput, type VerifyResult } from '../../../client/index.ts';
import { Breaker } from '../../../client/verifier/breaker.ts';
import { Questions } from '../../../client/verifier/questions.ts';
import { type Lookup, UnknownValues } from '../../../client/verifier/unknown-values.ts';
import { Usage, type UsageReport } from '../../../client/verifier/usage.ts';

const VALID: VerifyResult = {
  valid: true,
  kind: 'api_key',
  id: 'ak_1',
  subject: 's',
  name: 'n',
  scopes: [],
  claims: null,
  expiresAt: null,
};

function asking(answer: (input: VerifyInput) => Promise<VerifyResult>) {
  const requests: number[] = [];
  const client = {
    verify(input: VerifyInput) {
      requests.push(1);
      return answer(input);
    },
    verifyBatch(items: VerifyInput[]) {
      requests.push(items.length);
      return Promise.all(items.map(answer));
    },
  };
  return { requests, questions: new Questions({ client, onRequest: () => {} }) };
}

describe('Questions', () => {
  it('asks for many in requests of up to 100, and for the same once', async () => {
    const { requests, questions } = asking(async () => VALID);
    await Promise.all(
      Array.from({ length: 500 }, (_, i) => questions.ask({ credential: `${i % 250}` }, 'all')),
    );
    expect(requests).toEqual([100, 100, 50]);
  });

  it('joins none that was sent before something was told, or while more may have happened', async () => {
    const { requests, questions } = asking(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return VALID;
    });
    const input = { credential: 'x' };
    const before = questions.ask(input, '1');
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    await Promise.all([
      before,
      questions.ask(input, '1'),
      questions.ask(input, '2'),
      questions.ask(input, null),
    ]);
    expect(requests.reduce((sum, items) => sum + items)).toBe(2);
    await new Promise(setImmediate);
    const sent = questions.ask(input, null);
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    await Promise.all([sent, questions.ask(input, null)]);
    expect(requests.reduce((sum, items) => sum + items)).toBe(4);
  });

  it('asks one by one where one of many cannot be asked', async () => {
    const wrong = new CountersignError('invalid_input', 'no');
    const { questions } = asking(async ({ credential }) => {
      if (credential === 'wrong') throw wrong;
      return VALID;
    });
    const asked = ['a', 'wrong', 'b'].map((credential) => questions.ask({ credential }, 'all'));
    expect(await Promise.allSettled(asked)).toMatchObject([
      { value: VALID },
      { reason: wrong },
      { value: VALID },
    ]);
  });

  it('has each pay for itself what takes from a limit', async () => {
    let asked = 0;
    const { questions } = asking(async () => ({ ...VALID, creditsRemaining: 10 - ++asked }) as VerifyResult);
    const answers = await Promise.all(
      Array.from({ length: 3 }, () => questions.ask({ credential: 'x' }, 'all')),
    );
    expect(new Set(answers.map((each) => 'creditsRemaining' in each && each.creditsRemaining)).size).toBe(3);
  });

  it('tells everybody who asked what went wrong, and then does not ask for a moment', async () => {
    const down = new CountersignError('network', 'down');
    const { requests, questions } = asking(() => Promise.reject(down));
    for (let i = 0; i < 5; i++) await expect(questions.ask({ credential: `${i}` }, 'all')).rejects.toBe(down);
    await expect(questions.ask({ credential: 'x' }, 'all')).rejects.toMatchObject({ code: 'unavailable' });
    expect(requests).toHaveLength(5);
  });

  it('takes a refusal for an answer', async () => {
    const refused = new CountersignError('unauthenticated', 'no');
    const { requests, questions } = asking(() => Promise.reject(refused));
    for (let i = 0; i < 9; i++)
      await expect(questions.ask({ credential: `${i}` }, 'all')).rejects.toBe(refused);
    expect(requests).toHaveLength(9);
  });
});

describe('Breaker', () => {
  it('lets one try after a while, and all once that succeeded', () => {
    let now = 0;
    const breaker = new Breaker(() => now);
    for (let i = 0; i < 4; i++) breaker.failed();
    expect(breaker.isOpen).toBe(false);
    breaker.failed();
    expect(breaker.isOpen).toBe(true);
    now = 500;
    expect(breaker.isOpen).toBe(false);
    breaker.begin();
    expect(breaker.isOpen).toBe(true);
    breaker.failed();
    now += 499;
    expect(breaker.isOpen).toBe(true);
    now += 501;
    expect(breaker.isOpen).toBe(false);
    breaker.begin();
    breaker.succeeded();
    breaker.failed();
    expect(breaker.isOpen).toBe(false);
  });
});

describe('UnknownValues', () => {
  const [ONE, OTHER] = ['192.0.2.1', '192.0.2.2'];

  it('limits an address for the rest of its minute, and no other', async () => {
    let now = 0;
    const unknown = new UnknownValues(2, () => now);
    for (let i = 0; i < 2; i++) ((await unknown.begin(ONE)) as Lookup).end(true);
    now = 10_000;
    expect(await unknown.begin(ONE)).toBe(50_000);
    expect(await unknown.begin(OTHER)).toBeTypeOf('object');
    now = 60_000;
    expect(await unknown.begin(ONE)).toBeTypeOf('object');
  });

  it('takes a network of IPv6 addresses for one', async () => {
    const unknown = new UnknownValues(1, () => 0);
    ((await unknown.begin('2001:db8::1')) as Lookup).end(true);
    expect(await unknown.begin('2001:db8::ffff:1')).toBe(60_000);
    expect(await unknown.begin('2001:db8:0:1::1')).toBeTypeOf('object');
  });

  it('lets no more than that be under way, and refuses none for what turned out to be known', async () => {
    const unknown = new UnknownValues(2, () => 0);
    const both = [(await unknown.begin(ONE)) as Lookup, (await unknown.begin(ONE)) as Lookup];
    let third: Lookup | number | undefined;
    const begun = unknown.begin(ONE).then((lookup) => {
      third = lookup;
    });
    await sleep(5);
    expect(third).toBeUndefined();
    both[0]?.end(false);
    await begun;
    expect(third).toBeTypeOf('object');
    both[1]?.end(true);
    (third as unknown as Lookup).end(true);
    expect(await unknown.begin(ONE)).toBe(60_000);
  });
});

describe('Usage', () => {
  const used = (i: number): VerifyResult => ({ ...VALID, id: `ak_${i}` }) as VerifyResult;

  it('reports up to 100 counts at a time, and what did not arrive again under the same name', async () => {
    const sent: UsageReport[] = [];
    let fails = true;
    const usage = new Usage({
      now: () => 7_200_000,
      async report(report) {
        sent.push(report);
        if (fails) throw new Error('down');
      },
    });
    for (let i = 0; i < 150; i++) usage.count('api_key', used(i));
    usage.count('api_key', used(0));
    usage.count('api_key', { valid: false, reason: 'insufficient_scope', id: 'ak_0' });
    await usage.flush();
    expect(sent).toHaveLength(1);
    fails = false;
    await usage.close();
    expect(sent.map(({ counts }) => counts.length)).toEqual([100, 100, 50]);
    expect(sent[1]).toEqual(sent[0]);
    expect(new Set(sent.map(({ batchId }) => batchId)).size).toBe(2);
    expect(sent[0]?.counts[0]).toEqual({
      kind: 'api_key',
      id: 'ak_0',
      hour: 2,
      valid: 2,
      refused: 1,
      lastUsedAt: 7_200_000,
    });
  });

  it('reports on closing also what was counted while a report was under way', async () => {
    const sent: UsageReport[] = [];
    let arrive = () => {};
    const usage = new Usage({
      now: () => 0,
      async report(report) {
        sent.push(report);
        if (sent.length === 1)
          await new Promise<void>((resolve) => {
            arrive = resolve;
          });
      },
    });
    usage.count('api_key', used(0));
    void usage.flush();
    usage.count('api_key', used(1));
    const closed = usage.close();
    arrive();
    await closed;
    expect(sent.map(({ counts }) => counts.map(({ id }) => id))).toEqual([['ak_0'], ['ak_1']]);
  });
});
