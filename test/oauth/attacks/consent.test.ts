/** The page on which a user allows: nobody else's to show, to fill in or to press. */
import { beforeEach, expect, it } from 'vitest';
import {
  updateOauthApplication,
  updateOauthApplicationInput,
} from '../../../server/domain/oauth-applications.ts';
import { updateOauthSettings, updateOauthSettingsInput } from '../../../server/domain/oauth-settings.ts';
import {
  answeredBy,
  authorizeParams,
  challengeOf,
  formOf,
  REDIRECT_URI,
  type ServedOauth,
  serveOauth,
} from '../../support/authorization-server.ts';
import { callerWith, describeOnEachDialect } from '../../support/deps.ts';
import { refreshIn } from '../../support/plain-browser.ts';
import { send } from '../../support/server.ts';

const admin = callerWith('admin');
const ATTACKER = `user_${'6'.repeat(27)}`;

describeOnEachDialect('consent', (dialect) => {
  let served: ServedOauth;

  beforeEach(async () => {
    served = await serveOauth(dialect);
  });

  it('consent is asked for by a page that no other may frame, post or prefill', async () => {
    const asking = await served.application({ name: 'Asking' });
    const agent = await served.browser();
    const query = formOf(authorizeParams(asking, challengeOf('v'.repeat(43))));
    const page = await agent.open(`${served.url}/oauth/authorize?${query}`);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain('unsafe-inline');
    expect(page.headers.get('x-frame-options')).toBe('DENY');
    const [form] = page.forms;
    const fields = new URLSearchParams(form?.fields.map(([name, value]): [string, string] => [name, value]));
    const allowing = form?.buttons.find(({ text }) => /allow/i.test(text));
    if (allowing?.name) fields.append(allowing.name, allowing.value);
    const cookie = [...agent.cookies].map((pair) => pair.join('=')).join('; ');
    const action = new URL(form?.action ?? '', page.url);
    const post = async (body: URLSearchParams, headers: Record<string, string>) => {
      const response = await fetch(action, { method: 'POST', body, headers, redirect: 'manual' });
      return refreshIn(await response.text()) ?? '';
    };
    const forged = new URLSearchParams(fields);
    forged.set('csrf', 'x'.repeat(43));
    const other = await served.browser(ATTACKER);
    const others = [...other.cookies].map((pair) => pair.join('=')).join('; ');
    expect(await post(fields, { cookie, origin: 'https://evil.example' })).not.toContain('code=');
    expect(await post(forged, { cookie, origin: served.url })).not.toContain('code=');
    expect(await post(fields, { origin: served.url })).not.toContain('code=');
    expect(await post(fields, { cookie: others, origin: served.url })).not.toContain('code=');
    expect(await post(fields, { cookie, origin: served.url })).toContain('code=');
  });

  it('a program on the device gets no code without a click, also where nobody else is asked', async () => {
    const loopback = 'http://127.0.0.1/cb';
    const onDevice = [loopback, 'com.example.app:/cb'];
    const native = await served.application({
      public: true,
      redirectUris: [REDIRECT_URI, ...onDevice],
      consentRequired: false,
    });
    const agent = await served.browser();
    const open = (redirect_uri: string, more: Record<string, string> = {}) => {
      const params = { ...authorizeParams(native, challengeOf('v'.repeat(43))), redirect_uri, ...more };
      return agent.open(`${served.url}/oauth/authorize?${formOf(params)}`);
    };
    expect(answeredBy(await open(REDIRECT_URI)).get('code')).toMatch(/^oac_/);
    for (const uri of [...onDevice, 'http://127.0.0.1:50123/cb']) {
      for (let time = 0; time < 2; time++) {
        const page = await open(uri);
        expect([uri, page.left, page.text]).toEqual([uri, null, expect.stringContaining('Allow')]);
        expect(answeredBy(await agent.submit(page, {}, /allow/i)).get('code')).toMatch(/^oac_/);
      }
      expect(answeredBy(await open(uri, { prompt: 'none' })).get('error')).toBe('consent_required');
    }
  });

  it('an application that registered itself gets no code without a click, whatever an administrator or its row says', async () => {
    const { deps, url } = served;
    await updateOauthSettings(deps, admin, updateOauthSettingsInput.parse({ registration: 'open' }));
    const { body } = await send(`${url}/oauth/register`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ redirect_uris: [REDIRECT_URI] }),
    });
    const waived = updateOauthApplicationInput.parse({ id: body.client_id, consentRequired: false });
    const refused = { code: 'invalid_input', field: 'consentRequired' };
    await expect(updateOauthApplication(deps, admin, waived)).rejects.toMatchObject(refused);
    const agent = await served.browser();
    const open = (more: Record<string, string> = {}) => {
      const params = {
        ...authorizeParams({ clientId: body.client_id }, challengeOf('v'.repeat(43))),
        ...more,
      };
      return agent.open(`${url}/oauth/authorize?${formOf(params)}`);
    };
    for (const consent_required of [true, false]) {
      await deps.store.tx(({ db, tables }) => db.update(tables.oauthApplications).set({ consent_required }));
      const page = await open();
      expect([page.left, page.text]).toEqual([null, expect.stringContaining('Allow')]);
      expect(answeredBy(await agent.submit(page, {}, /allow/i)).get('code')).toMatch(/^oac_/);
      expect(answeredBy(await open({ prompt: 'none' })).get('error')).toBe('consent_required');
    }
  });

  it('what an application calls itself is shown as text', async () => {
    const evil = await served.application({ name: '<img src=x onerror=alert(1)>"&' });
    const query = formOf({
      ...authorizeParams(evil, challengeOf('v'.repeat(43))),
      state: '"><script>alert(1)</script>',
      login_hint: '"><script>alert(2)</script>',
    });
    const { text } = await (await served.browser()).open(`${served.url}/oauth/authorize?${query}`);
    expect(text).toContain('&lt;img src=x onerror=alert(1)&gt;');
    expect(text).not.toMatch(/<img|<script/);
  });
});
