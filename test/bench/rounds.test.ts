import { expect, it } from 'vitest';
import { byCalls, type Contender, inTurn } from '../../bench/rounds.ts';

/** Contenders that note who ran and who was stopped meanwhile; each has had its core for `cpuSeconds` a run. */
function contenders(names: readonly string[]) {
  const running = new Set(names);
  const ran: string[] = [];
  const made = names.map((name, i): Contender => {
    let runs = 0;
    return {
      measured: {
        port: 0,
        rssMb: () => 0,
        cpuSeconds: () => 0,
        pause: () => void running.delete(name),
        resume: () => void running.add(name),
        stop: async () => {},
      },
      async run(durationMs) {
        ran.push(`${name} ${durationMs}, running: ${[...running].join(' ')}`);
        return 10 * (i + 1) + runs++;
      },
    };
  });
  return { made, running, ran };
}

it('inTurn() warms up, then measures one at a time, every other round backwards, while the others are stopped', async () => {
  const { made, running, ran } = contenders(['a', 'b']);
  const rounds = await inTurn(made, { rounds: 2, roundMs: 7 });
  expect(ran.slice(2)).toEqual(['a 7, running: a', 'b 7, running: b', 'b 7, running: b', 'a 7, running: a']);
  expect(ran.slice(0, 2).map((line) => line.split(', ')[1])).toEqual(['running: a', 'running: b']);
  expect(running).toEqual(new Set(['a', 'b']));
  // What was measured while warming up is not among them.
  expect(rounds.map((ofOne) => ofOne.map(({ perSecond }) => perSecond))).toEqual([
    [11, 12],
    [21, 22],
  ]);
});

it('byCalls() fails at the first answer that is not as wanted', async () => {
  const [contender] = contenders(['a']).made;
  if (!contender) throw new Error('Wanted a contender');
  let calls = 0;
  const { run } = byCalls(
    contender.measured,
    async () => ({ valid: ++calls < 50 }),
    ({ valid }) => valid,
  );
  await expect(run(10_000)).rejects.toThrow('found {"valid":false}');
});
