import { expect, it, onTestFinished } from 'vitest';
import { emptyDatabase, freshFolder, MASTER_KEY } from '../support/deps.ts';
import { describeMode } from '../workers/transports.ts';
import { startCountersign } from './countersign.ts';
import { crash } from './crash.ts';
import { startNaive } from './naive.ts';

/** The run by command is longer: `npm run crash-test`. */
const ROUNDS = 3;

const masterKey = MASTER_KEY.toString('base64');

function suite(transport: 'embedded' | 'bullmq', dialect: 'sqlite' | 'postgres') {
  it('every committed revocation arrives, whoever is killed, and twice only under one id', {
    timeout: 480_000,
  }, async () => {
    const databaseUrl = dialect === 'postgres' ? await emptyDatabase(dialect) : null;
    const options = { folder: freshFolder(), transport, databaseUrl, masterKey, whenDone: onTestFinished };
    const result = await crash({
      rounds: ROUNDS,
      start: (receiverUrl) => startCountersign(options, receiverUrl),
      whenDone: onTestFinished,
    });
    expect(result).toMatchObject({ lost: [], renamed: [] });
    expect(result.committed).toBeGreaterThan(ROUNDS);
  });
}

describeMode('crash, embedded', [], () => suite('embedded', 'sqlite'));
describeMode('crash, over BullMQ', ['redis'], () => suite('bullmq', 'sqlite'));
describeMode('crash, over BullMQ on PostgreSQL', ['redis', 'postgres'], () => suite('bullmq', 'postgres'));

describeMode('crash, commit then enqueue', ['redis'], () => {
  it('loses what it had committed: the test can fail', { timeout: 480_000 }, async () => {
    const folder = freshFolder();
    const result = await crash({
      rounds: 2 * ROUNDS,
      start: (receiverUrl) => startNaive(folder, receiverUrl, onTestFinished),
      whenDone: onTestFinished,
    });
    expect(result.lost.length).toBeGreaterThan(0);
  });
});
