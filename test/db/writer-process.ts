/** A process that writes rows without end, eight at a time, and prints the id of each once it is acknowledged. */
import { openStore } from '../../db/store.ts';
import { addRow } from './rows.ts';

const [location = '', round = ''] = process.argv.slice(2);
const store = await openStore({ location });

async function write(worker: number) {
  for (let i = 0; ; i++) {
    const id = await store.tx((tx) => addRow(tx, `${round}-${worker}-${i}`));
    process.stdout.write(`${id}\n`);
  }
}

await Promise.all(Array.from({ length: 8 }, (_, worker) => write(worker)));
