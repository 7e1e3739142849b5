/** A browser without script: keeps cookies, follows the redirects of one site, and posts its forms. */

export interface Page {
  url: string;
  status: number;
  headers: Headers;
  text: string;
  forms: readonly Form[];
  /** Where a redirect or a form led to another site, which is not asked; null where it is still this one. */
  left: { url: URL; form: URLSearchParams | null } | null;
}

export interface Form {
  action: string;
  method: string;
  /** What is filled in already, without the buttons. */
  fields: readonly (readonly [string, string])[];
  buttons: readonly { name: string; value: string; text: string }[];
  /** The names of what can be filled in, by type. */
  inputs: readonly { name: string; type: string }[];
}

export interface UserAgent {
  cookies: Map<string, string>;
  open(url: string | URL): Promise<Page>;
  /** Posts a form of a page, with these values instead of those filled in, by the button whose text or value fits. */
  submit(page: Page, values?: Record<string, string | readonly string[]>, button?: RegExp): Promise<Page>;
}

const REDIRECTS_MAX = 10;

export function openUserAgent(site: string): UserAgent {
  const cookies = new Map<string, string>();
  const { origin } = new URL(site);

  async function request(target: URL, init: RequestInit = {}): Promise<Page> {
    let url = target;
    let next = init;
    for (let redirects = 0; redirects <= REDIRECTS_MAX; redirects++) {
      const headers = new Headers(next.headers);
      if (cookies.size > 0) headers.set('cookie', [...cookies].map((pair) => pair.join('=')).join('; '));
      const response = await fetch(url, { ...next, headers, redirect: 'manual' });
      keep(cookies, response.headers.getSetCookie());
      const text = await response.text();
      const location = response.headers.get('location') ?? refreshIn(text);
      const page = { url: url.href, status: response.status, headers: response.headers, text };
      if (location === null) return { ...page, forms: formsIn(text, url), left: null };
      const to = new URL(location, url);
      if (to.origin !== origin) return { ...page, forms: [], left: { url: to, form: null } };
      // Whatever it was, a redirect is got; our server sends no other.
      url = to;
      next = {};
    }
    throw new Error(`Wanted at most ${REDIRECTS_MAX} redirects: ${url.href}`);
  }

  return {
    cookies,
    open: (url) => request(new URL(url)),
    async submit(page, values = {}, button) {
      const { form, pressed } = pick(page, button);
      const fields = new URLSearchParams(
        form.fields.flatMap(([name, value]): [string, string][] =>
          values[name] === undefined ? [[name, value]] : [],
        ),
      );
      for (const [name, given] of Object.entries(values))
        for (const value of [given].flat()) fields.append(name, value);
      if (pressed?.name) fields.append(pressed.name, pressed.value);
      const action = new URL(form.action, page.url);
      if (action.origin !== origin)
        return { ...page, status: 0, text: '', forms: [], left: { url: action, form: fields } };
      if (form.method === 'get') {
        action.search = `${fields}`;
        return request(action);
      }
      return request(action, { method: 'POST', body: fields, headers: { origin } });
    },
  };
}

function pick(page: Page, button: RegExp | undefined) {
  for (const form of page.forms) {
    if (!button) return { form, pressed: form.buttons[0] };
    const pressed = form.buttons.find(({ text, value }) => button.test(text) || button.test(value));
    if (pressed) return { form, pressed };
  }
  throw new Error(`Wanted a form with the button ${button}, found: ${page.status} ${page.text}`);
}

function keep(cookies: Map<string, string>, set: readonly string[]) {
  for (const line of set) {
    const [pair = '', ...attributes] = line.split(/; */);
    const [name = '', value = ''] = pair.split(/=(.*)/s, 2);
    const isOver = attributes.some(
      (attribute) =>
        /^max-age=0$/i.test(attribute) ||
        (/^expires=/i.test(attribute) && Date.parse(attribute.slice(8)) < 1),
    );
    if (isOver || value === '') cookies.delete(name);
    else cookies.set(name, value);
  }
}

const FORM = /<form\b([^>]*)>(.*?)<\/form>/gs;
const CONTROL = /<(input)\b([^>]*)>|<(button|select|textarea)\b([^>]*)>(.*?)<\/\3>/gs;

function formsIn(text: string, url: URL): Form[] {
  return [...text.matchAll(FORM)].map(([, opening = '', content = '']) => {
    const attributes = attributesIn(opening);
    const form = {
      action: attributes['action'] ?? url.href,
      method: (attributes['method'] ?? 'get').toLowerCase(),
      fields: [] as [string, string][],
      buttons: [] as Form['buttons'][number][],
      inputs: [] as Form['inputs'][number][],
    };
    for (const [, input, ofInput = '', tag = '', ofTag = '', body = ''] of content.matchAll(CONTROL))
      addControl(form, input ?? tag, attributesIn(input ? ofInput : ofTag), body);
    return form;
  });
}

function addControl(
  form: {
    fields: [string, string][];
    buttons: { name: string; value: string; text: string }[];
    inputs: { name: string; type: string }[];
  },
  tag: string,
  attributes: Record<string, string>,
  body: string,
) {
  const { name = '', value = '' } = attributes;
  const type = tag === 'input' ? (attributes['type'] ?? 'text').toLowerCase() : tag;
  if (type === 'button' || type === 'submit') {
    const text = unescaped(body.replace(/<[^>]*>/g, '')).trim() || value;
    form.buttons.push({ name, value, text });
    return;
  }
  form.inputs.push({ name, type });
  if (type === 'select') {
    const options = [...body.matchAll(/<option\b([^>]*)>/g)].map(([, each = '']) => attributesIn(each));
    const chosen = options.find((option) => 'selected' in option) ?? options[0];
    if (chosen) form.fields.push([name, chosen['value'] ?? '']);
  } else if ((type === 'checkbox' || type === 'radio') && !('checked' in attributes)) return;
  else if (name !== '') form.fields.push([name, value]);
}

const ATTRIBUTE = /([\w-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/g;

const attributesIn = (text: string): Record<string, string> =>
  Object.fromEntries(
    [...text.matchAll(ATTRIBUTE)].map(([, name = '', double, single, bare]) => [
      name.toLowerCase(),
      unescaped(double ?? single ?? bare ?? ''),
    ]),
  );

/** Where a page leads by itself, at once; null where it stays. */
export function refreshIn(text: string): string | null {
  const url = /<meta http-equiv="refresh" content="0;url=([^"]*)">/.exec(text)?.[1];
  return url === undefined ? null : unescaped(url);
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", '#x2F': '/' };

const unescaped = (text: string) =>
  text.replace(/&(amp|lt|gt|quot|#39|#x2F);/g, (_, name: string) => ENTITIES[name] ?? '');
