/**
 * Follows the feed in a process of its own, and prints how long after it was committed it was told of each revocation, in
 * milliseconds, as JSON once its input ends.
 */
import { request } from 'node:http';

const [url = '', key = ''] = process.argv.slice(2);
const delays: number[] = [];
let rest = '';

const sent = request(`${url}/v1/feed`, { headers: { authorization: `Bearer ${key}` } }, (response) => {
  if (response.statusCode !== 200) throw new Error(`Wanted the feed, found status ${response.statusCode}`);
  response.setEncoding('utf8').on('data', (text: string) => {
    const now = Date.now();
    const messages = (rest + text).split('\n\n');
    rest = messages.pop() ?? '';
    for (const message of messages) take(message, now);
  });
});
sent.end();

function take(message: string, now: number) {
  if (message.includes('event: snapshot') && message.includes('"complete":true'))
    process.stdout.write('following\n');
  if (!message.includes('event: invalidate')) return;
  const { at } = JSON.parse(/^data: (.*)$/m.exec(message)?.[1] ?? '{}') as { at: number };
  delays.push(now - at);
}

process.stdin.resume().once('end', () => {
  process.stdout.write(`${JSON.stringify(delays)}\n`, () => process.exit(0));
});
