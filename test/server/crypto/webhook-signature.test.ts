import { randomBytes } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { expect, it } from 'vitest';
import { signWebhook, WEBHOOK_SECRET_PREFIX } from '../../../server/crypto/webhook-signature.ts';

it('signWebhook() signs as the specification’s example does', () => {
  // Standard Webhooks 1.0.0, "Signature scheme", and the test of its reference libraries.
  const signature = signWebhook(
    'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    'msg_p5jXN8AQM9LWM0D4loKWxJek',
    1_614_265_330,
    '{"test": 2432232314}',
  );
  expect(signature).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
});

it('signWebhook() is accepted by the official library, over any characters, and only as it was signed', () => {
  const secret = WEBHOOK_SECRET_PREFIX + randomBytes(32).toString('base64');
  const timestamp = Math.floor(Date.now() / 1000);
  const body = JSON.stringify({ name: 'Ärger 🔑 "quoted"\n' });
  const headers = {
    'webhook-id': 'evt_1',
    'webhook-timestamp': `${timestamp}`,
    'webhook-signature': signWebhook(secret, 'evt_1', timestamp, body),
  };
  const receiver = new Webhook(secret);
  expect(receiver.verify(body, headers)).toEqual(JSON.parse(body));
  expect(() => receiver.verify(`${body} `, headers)).toThrow();
  expect(() => receiver.verify(body, { ...headers, 'webhook-id': 'evt_2' })).toThrow();
  expect(() => receiver.verify(body, { ...headers, 'webhook-timestamp': `${timestamp - 1}` })).toThrow();
});
