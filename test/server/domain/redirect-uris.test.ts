import { describe, expect, it } from 'vitest';
import {
  isOnDevice,
  isRegisteredRedirectUri,
  redirectHostOf,
  redirectUriRefusal,
} from '../../../server/domain/redirect-uris.ts';

describe('redirectUriRefusal()', () => {
  it.each([
    'https://app.example.com/callback',
    'https://app.example.com',
    'https://app.example.com/callback?tenant=1',
    'http://127.0.0.1/callback',
    'http://[::1]:8080/callback',
    'http://localhost:3000/',
    'com.example.app:/callback',
    'com.example.app://callback',
    'https://xn--bcher-kva.example/callback',
  ])('lets %s be registered', (uri) => {
    expect(redirectUriRefusal(uri)).toBeNull();
  });

  it.each([
    ['a fragment', 'https://app.example.com/callback#x'],
    ['an empty fragment', 'https://app.example.com/callback#'],
    ['a user', 'https://app.example.com@evil.example/callback'],
    ['plain http', 'http://app.example.com/callback'],
    ['a host that begins like loopback', 'http://127.0.0.1.evil.example/callback'],
    ['a script', 'javascript:alert(1)'],
    ['data', 'data:text/html,hi'],
    ['a file', 'file:///etc/passwd'],
    ['a scheme without a point', 'myapp:/callback'],
    ['letters of another script', 'https://аpp.example.com/callback'],
    ['a host in another script', 'https://bücher.example/callback'],
    ['steps up', 'https://app.example.com/a/../callback'],
    ['a capital host', 'https://APP.example.com/callback'],
    ['a port that is the default', 'https://app.example.com:443/callback'],
    ['a space', 'https://app.example.com/call back'],
    ['a line', 'https://app.example.com/\ncallback'],
    ['a backslash', 'https://app.example.com\\@evil.example/'],
    ['nothing of a URI', 'callback'],
  ])('refuses %s', (_what, uri) => {
    expect(redirectUriRefusal(uri)).toMatch(/^wanted /);
  });
});

describe('isRegisteredRedirectUri()', () => {
  it('wants the same text', () => {
    const registered = ['https://app.example.com/callback'];
    expect(isRegisteredRedirectUri(registered, 'https://app.example.com/callback')).toBe(true);
    for (const other of [
      'https://app.example.com/callback/',
      'https://app.example.com/callback?x=1',
      'https://app.example.com/callback/../evil',
      'https://app.example.com:444/callback',
      'https://app.example.com.evil.example/callback',
      'https://APP.example.com/callback',
      'http://app.example.com/callback',
    ])
      expect([other, isRegisteredRedirectUri(registered, other)]).toEqual([other, false]);
  });

  it('leaves the port of a loopback address free, and nothing else of it', () => {
    const registered = ['http://127.0.0.1/callback', 'http://[::1]:1/callback'];
    for (const port of [49152, 80])
      for (const host of ['127.0.0.1', '[::1]'])
        expect(isRegisteredRedirectUri(registered, `http://${host}:${port}/callback`)).toBe(true);
    for (const other of [
      'http://localhost:49152/callback',
      'http://127.0.0.1:49152/other',
      'http://127.0.0.1:49152/callback?x=1',
      'https://127.0.0.1:49152/callback',
      'http://user@127.0.0.1:49152/callback',
      'http://127.0.0.1.evil.example:49152/callback',
      'http://127.1:49152/callback',
      'http://127.1:80/callback',
      'http://[::1]:80:80/callback',
      'http://127.0.0.1:80@evil.example/callback',
      'http://127.0.0.1:080/callback',
      'https://127.0.0.1:80/callback',
    ])
      expect([other, isRegisteredRedirectUri(registered, other)]).toEqual([other, false]);
  });
});

it('people are shown the host, or the scheme of what is on their own device', () => {
  expect(redirectHostOf('https://app.example.com:8443/callback')).toBe('app.example.com:8443');
  expect(redirectHostOf('http://localhost:3000/callback')).toBe('localhost:3000');
  expect(redirectHostOf('com.example.app:/callback')).toBe('com.example.app');
  expect(['https://a.example/', 'http://127.0.0.1/', 'com.example.app:/x'].map(isOnDevice)).toEqual([
    false,
    true,
    true,
  ]);
});
