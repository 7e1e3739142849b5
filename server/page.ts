/** The small page at `/`: what this is, how it does, where to go next. No script, and nothing of the request in it. */
import { escapeHtml, sourceOf } from './oauth/html.ts';

export interface PageState {
  publicUrl: string;
  ready: boolean;
  /** What works less well than it should, or null. */
  degraded: string | null;
  /** Whether it has a console. */
  console: boolean;
}

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 40rem; margin: 4rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
code { font-family: ui-monospace, monospace; background: color-mix(in srgb, currentColor 10%, transparent); padding: .1em .3em; border-radius: .2em; }
dt { font-weight: 600; }
dd { margin: 0 0 .75rem; }
`;

/** What a Content-Security-Policy names to let the page's own style in, and no other. */
export const STYLE_SOURCE = sourceOf(STYLE);

export function renderPage({ publicUrl, ready, degraded, console }: PageState): string {
  const state = ready ? (degraded === null ? 'ready' : `ready, degraded: ${degraded}`) : 'not ready';
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Countersign, machine authentication</title>
<style>${STYLE}</style>
</head>
<body>
<h1>Countersign, machine authentication</h1>
<p>Issues, verifies and revokes machine-to-machine tokens and API keys.</p>
<dl>
<dt>State</dt>
<dd>${escapeHtml(state)}</dd>
<dt>Address</dt>
<dd><code>${escapeHtml(publicUrl)}</code></dd>
<dt>Next</dt>
<dd><code>npm run demo</code> where this server was started: machines, a token, an API key, a webhook</dd>
<dt>Links</dt>
<dd>${console ? '<a href="/console/">console</a>, ' : ''}<a href="/docs">API reference</a>, <a href="/openapi.json">OpenAPI document</a>, <a href="/healthz">health</a>, <a href="/readyz">readiness</a>, <a href="/.well-known/jwks.json">signing keys</a></dd>
</dl>
</body>
</html>
`;
}
