/** A process that does something exclusively: prints `held`, echoes each line it is told, and stops at `leave`. */
import { createInterface } from 'node:readline';
import { openStore } from '../../db/store.ts';

const [location = ''] = process.argv.slice(2);
const store = await openStore({ location });

await store.exclusively(async () => {
  process.stdout.write('held\n');
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${line} ${Date.now()}\n`);
    if (line === 'leave') break;
  }
});
await store.close();
process.stdin.destroy();
