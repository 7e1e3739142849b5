import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { renderPage, STYLE_SOURCE } from '../../server/page.ts';

const STATE = { publicUrl: 'https://auth.example.com', ready: true, degraded: null, console: true };

describe('renderPage()', () => {
  it('says how the server does', () => {
    expect(renderPage(STATE)).toContain('<dd>ready</dd>');
    expect(renderPage({ ...STATE, degraded: 'Redis is down' })).toContain('ready, degraded: Redis is down');
    expect(renderPage({ ...STATE, ready: false })).toContain('<dd>not ready</dd>');
    expect(renderPage(STATE)).toContain('href="/console/"');
    expect(renderPage({ ...STATE, console: false })).not.toContain('/console/');
  });

  it('escapes what it is given', () => {
    const page = renderPage({ ...STATE, publicUrl: `"><script>'&`, degraded: '<img src=x>' });
    expect(page).toContain('&quot;&gt;&lt;script&gt;&#39;&amp;');
    expect(page).not.toMatch(/<script|<img/);
  });

  it('has only the style that its policy names', () => {
    const [, style = ''] = /<style>([\s\S]*)<\/style>/.exec(renderPage(STATE)) ?? [];
    expect(STYLE_SOURCE).toBe(`'sha256-${createHash('sha256').update(style).digest('base64')}'`);
    expect(renderPage(STATE)).not.toMatch(/ style=| on\w+=/);
  });
});
