import { Webhook } from 'standardwebhooks';
import { describe, expect, it } from 'vitest';
import { verifyWebhook, WebhookVerificationError } from '../../client/webhooks.ts';
import { generateWebhookKey } from '../../server/crypto/webhook-signature.ts';
import { webhookHeadersOf } from '../../server/domain/webhook-messages.ts';

const secretOf = (byte: number) => `whsec_${Buffer.alloc(32, byte).toString('base64')}`;
const [NEW, OLD, OTHER] = [secretOf(1), secretOf(2), secretOf(3)] as const;
const KEY = generateWebhookKey();
const ID = 'evt_2vYJw4xGkQ8nTb6LrDs0HfPcZaM';
const BODY = JSON.stringify({ type: 'machine.disabled', data: { name: 'ä', denyUntil: null } });

/** As sent while a secret rotates, by an endpoint with an asymmetric key. */
const sent = (now = Date.now()) =>
  webhookHeadersOf({ secrets: [NEW, OLD], privateKey: KEY.privateKey }, ID, now, BODY);

describe('what is sent', () => {
  it('is signed by the new secret, the old one, and the asymmetric key', () => {
    expect(sent()['webhook-signature']).toMatch(
      /^v1,[A-Za-z0-9+/]{43}= v1,[A-Za-z0-9+/]{43}= v1a,[A-Za-z0-9+/]{86}==$/,
    );
  });

  it('is accepted by the official library with either secret, and with no third', () => {
    for (const secret of [NEW, OLD])
      expect(new Webhook(secret).verify(BODY, sent())).toEqual(JSON.parse(BODY));
    expect(() => new Webhook(OTHER).verify(BODY, sent())).toThrow('No matching signature');
  });
});

describe('verifyWebhook()', () => {
  const given = { body: BODY, headers: sent() };

  it.each([
    ['the new secret', { secret: NEW }],
    ['the old secret', { secret: OLD }],
    ['several, of which one is right', { secret: [OTHER, OLD] }],
    ['the public key', { publicKey: KEY.publicKey }],
    ['a secret that is not right and a public key that is', { secret: OTHER, publicKey: KEY.publicKey }],
  ])('accepts with %s', (_, keys) => {
    expect(verifyWebhook({ ...given, ...keys })).toEqual(JSON.parse(BODY));
  });

  it('takes bytes, a Headers, and names in any case', () => {
    const headers = Object.fromEntries(
      Object.entries(sent()).map(([name, value]) => [name.toUpperCase(), [value]]),
    );
    for (const each of [headers, new Headers(sent())]) {
      expect(verifyWebhook({ body: Buffer.from(BODY), headers: each, secret: NEW })).toMatchObject({
        type: 'machine.disabled',
      });
    }
  });

  it.each([
    ['another secret', { secret: OTHER }],
    ['another public key', { publicKey: generateWebhookKey().publicKey }],
    ['another body', { secret: NEW, body: `${BODY} ` }],
    ['another id', { secret: NEW, headers: { ...sent(), 'webhook-id': 'evt_x' } }],
    ['no signature', { secret: NEW, headers: { ...sent(), 'webhook-signature': undefined } }],
    ['a cut signature', { secret: NEW, headers: { ...sent(), 'webhook-signature': 'v1,AAAA v1a,AA v1' } }],
    ['a time that is none', { secret: NEW, headers: { ...sent(), 'webhook-timestamp': 'now' } }],
    ['a time 301 s ago', { secret: NEW, headers: sent(Date.now() - 302_000) }],
    ['a time 301 s ahead', { secret: NEW, headers: sent(Date.now() + 302_000) }],
    [
      'a time beyond a narrower tolerance',
      { secret: NEW, headers: sent(Date.now() - 9_000), toleranceSeconds: 5 },
    ],
  ])('refuses %s', (_, changed) => {
    expect(() => verifyWebhook({ ...given, ...changed })).toThrow(WebhookVerificationError);
  });

  it('takes the signature of one scheme for none of the other', () => {
    const swapped = given.headers['webhook-signature']?.replaceAll('v1,', 'v2,').replace('v1a,', 'v1,');
    const headers = { ...given.headers, 'webhook-signature': swapped };
    expect(() => verifyWebhook({ body: BODY, headers, secret: NEW, publicKey: KEY.publicKey })).toThrow(
      WebhookVerificationError,
    );
  });

  it('wants a key, in its form, and names none in what it throws', () => {
    expect(() => verifyWebhook(given)).toThrow(TypeError);
    for (const keys of [
      { secret: 'sk_live' },
      { secret: '' },
      { publicKey: 'whpk_AAAA' },
      { publicKey: NEW },
    ]) {
      expect(() => verifyWebhook({ ...given, ...keys })).toThrow(TypeError);
      expect(() => verifyWebhook({ ...given, ...keys })).not.toThrow(/live|AAAA/);
    }
  });
});
