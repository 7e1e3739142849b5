/** Pages for end users: made on the server, without script, with a policy that lets nothing else in. */
import { createHash } from 'node:crypto';
import type { OauthAnswer } from './endpoint.ts';

/** A piece of HTML, as it goes out. */
export class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Piece = Html | string | number | null | undefined | false | readonly Piece[];

/** HTML with values in it: text is escaped, other pieces stand as they are; null, undefined and false are nothing. */
export const html = (texts: TemplateStringsArray, ...pieces: readonly Piece[]): Html =>
  new Html(texts.map((text, i) => text + render(pieces[i])).join(''));

function render(piece: Piece): string {
  if (piece === null || piece === undefined || piece === false) return '';
  if (piece instanceof Html) return piece.text;
  if (typeof piece === 'object') return piece.map(render).join('');
  return escapeHtml(String(piece));
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export const escapeHtml = (text: string) =>
  text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --accent: light-dark(#1553b5, #8ab4ff); --quiet: light-dark(#555, #b0b0b0); --line: light-dark(#767676, #8c8c8c); --bad: light-dark(#a61b1b, #ff9c9c); }
html { background: light-dark(#fff, #141414); color: light-dark(#1a1a1a, #ededed); }
* { box-sizing: border-box; }
body { max-width: 30rem; margin: 0 auto; padding: 3rem 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.125rem; margin: 1.5rem 0 .5rem; }
a { color: var(--accent); }
label { display: block; font-weight: 600; margin-top: 1rem; }
label.choice { font-weight: 400; display: flex; gap: .5rem; align-items: baseline; margin-top: .25rem; }
input[type=text], input[type=email], input[type=password], select { width: 100%; font: inherit; color: inherit; background: light-dark(#fff, #1c1c1c); border: 1px solid var(--line); border-radius: .375rem; padding: .5rem .75rem; margin-top: .25rem; }
button { font: inherit; font-weight: 600; border-radius: .375rem; border: 1px solid var(--line); background: transparent; color: inherit; padding: .5rem 1rem; min-height: 2.75rem; cursor: pointer; }
button.primary { background: light-dark(#1553b5, #8ab4ff); border-color: transparent; color: light-dark(#fff, #06142b); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.actions { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem; }
.quiet { color: var(--quiet); font-size: .9375rem; }
.bad { color: var(--bad); }
.box { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
.logo { width: 4rem; height: 4rem; object-fit: contain; }
ul { padding-left: 1.25rem; }
code { font-family: ui-monospace, monospace; }
fieldset { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0 0; padding: .5rem 1rem 1rem; }
legend { font-weight: 600; padding: 0 .25rem; }
`;

/** What a Content-Security-Policy names to let this one style or script in. */
export const sourceOf = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

const STYLE_SOURCE = sourceOf(STYLE);

export interface Page {
  title: string;
  body: Html;
  status?: number;
  /** Where it leads by itself, at once and without script. */
  refresh?: string;
  /** Whether its forms are ours and lead to an application. */
  isForApplication?: boolean;
  /** Whether it is on the way of an application, which may have opened it as a popup that it waits for. */
  isOnTheWay?: boolean;
  /** A script of ours, whole: let in by its hash. */
  script?: string;
  headers?: OauthAnswer['headers'];
}

export function page({
  title,
  body,
  status = 200,
  refresh,
  isForApplication = false,
  isOnTheWay = false,
  script,
  headers = {},
}: Page): OauthAnswer {
  const policy = [
    "default-src 'none'",
    `style-src ${STYLE_SOURCE}`,
    ...(script === undefined ? [] : [`script-src ${sourceOf(script)}`]),
    "img-src 'self'",
    // Browsers hold each redirect that follows a form against this too, those of an application among them.
    ...(isForApplication ? [] : ["form-action 'self'"]),
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
  return {
    status,
    headers: {
      'Cache-Control': 'no-store',
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': policy,
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'DENY',
      // Forms say where they come from, and nobody else learns of an interaction.
      'Referrer-Policy': 'same-origin',
      ...(!isOnTheWay && { 'Cross-Origin-Opener-Policy': 'same-origin' }),
      ...headers,
    },
    body: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${refresh === undefined ? '' : `<meta http-equiv="refresh" content="0;url=${escapeHtml(refresh)}">\n`}<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>${body.text}
</main>${script === undefined ? '' : `\n<script>${script}</script>`}
</body>
</html>
`,
  };
}
