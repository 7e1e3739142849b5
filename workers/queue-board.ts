/** The board of the queue that work goes through: https://github.com/felixmosh/bull-board. */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { ExpressAdapter } from '@bull-board/express';
import type { Queue } from 'bullmq';

/** An application for Express. */
export type Board = ReturnType<ExpressAdapter['getRouter']>;

/** Shows the queue under `path`, and changes nothing. */
export function createBoard(queue: Queue, path: string): Board {
  const server = new ExpressAdapter();
  server.setBasePath(path);
  createBullBoard({
    queues: [
      new BullMQAdapter(queue, {
        readOnlyMode: true,
        description: 'What is due; the rows are in the database',
      }),
    ],
    serverAdapter: server,
    options: { uiConfig: { boardTitle: 'Countersign, queues', miscLinks: [] } },
  });
  return server.getRouter();
}
