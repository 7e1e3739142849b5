/** What a code that was stolen, injected or asked for without proof is worth. */
import { beforeEach, expect, it } from 'vitest';
import {
  allow,
  answeredBy,
  authorizeParams,
  clientOf,
  type Form,
  formOf,
  REDIRECT_URI,
  type ServedOauth,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { describeOnEachDialect } from '../../support/deps.ts';
import { send } from '../../support/server.ts';
import { newPkce } from '../../support/user-agent.ts';

describeOnEachDialect('codes', (dialect) => {
  let served: ServedOauth;
  let application: TestApplication;
  /** May do without PKCE. */
  let lax: TestApplication;
  let native: TestApplication;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    application = await served.application();
    lax = await served.application({ name: 'Lax', pkceRequired: false });
    native = await served.application({ name: 'Native', public: true });
  });

  const redeem = (form: Form, who: TestApplication) =>
    served.post('/oauth/token', { ...form, ...clientOf(who) });

  const REFUSED = { status: 400, body: { error: 'invalid_grant' } };

  it('code injection: a code of another session fails at the verifier of this one', async () => {
    const [stolen, own] = [await served.code(application), await served.code(application)];
    expect(await redeem({ ...own.form, code: stolen.code }, application)).toMatchObject(REFUSED);
  });

  it('code injection: a code is bound to its redirect URI', async () => {
    const other = 'https://app.example.com/other';
    const two = await served.application({ name: 'Two', redirectUris: [REDIRECT_URI, other] });
    for (const redirect_uri of [other, undefined, `${REDIRECT_URI}/`]) {
      const { form } = await served.code(two);
      expect(await redeem({ ...form, redirect_uri }, two)).toMatchObject(REFUSED);
    }
  });

  it('code injection: a code is bound to the resources it was asked for', async () => {
    const { form } = await served.code(application, { resource: 'https://api.example.com/' });
    const { status, body } = await redeem({ ...form, resource: 'https://other.example.com/' }, application);
    expect([status, body.error]).toEqual([400, 'invalid_target']);
  });

  it('a code is used once: a second use ends what the first was issued', async () => {
    for (const who of [application, native]) {
      const { form } = await served.code(who);
      const { body } = await redeem(form, who);
      const headers = { authorization: `Bearer ${body.access_token}` };
      const userinfo = async () => (await send(`${served.url}/oauth/userinfo`, { headers })).status;
      expect(await userinfo()).toBe(200);
      // Whoever saw the code without its verifier, or is another, ends nothing by it.
      expect(await redeem({ ...form, code_verifier: 'x'.repeat(43) }, who)).toMatchObject(REFUSED);
      expect(await redeem(form, lax)).toMatchObject(REFUSED);
      expect(await userinfo()).toBe(200);
      expect(await redeem(form, who)).toMatchObject(REFUSED);
      expect(await userinfo()).toBe(401);
      const refresh = { grant_type: 'refresh_token', refresh_token: body.refresh_token };
      expect(await redeem(refresh, who)).toMatchObject(REFUSED);
    }
  });

  it('a code is over after its time', async () => {
    const { form } = await served.code(application);
    served.deps.clock.now += 60_000;
    expect(await redeem(form, application)).toMatchObject(REFUSED);
  });

  it('a code that is refused is not told from none at all', async () => {
    const { form } = await served.code(application);
    const answers = [
      await redeem({ ...form, code_verifier: 'x'.repeat(43) }, application),
      await redeem({ ...form, code: 'oac_nothing' }, application),
      await redeem({ ...form, redirect_uri: 'https://evil.example/' }, application),
    ];
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1);
  });

  async function refusalOf(params: Form, who: TestApplication) {
    const query = formOf({ ...authorizeParams(who, newPkce().challenge), ...params });
    const page = await allow(await served.browser(), `${served.url}/oauth/authorize?${query}`);
    return answeredBy(page).get('error');
  }

  const WITHOUT_PKCE = { code_challenge: undefined, code_challenge_method: undefined };

  it('PKCE downgrade: a request without a challenge is refused of whoever needs one', async () => {
    for (const who of [application, native])
      expect(await refusalOf(WITHOUT_PKCE, who)).toBe('invalid_request');
    expect(await refusalOf(WITHOUT_PKCE, lax)).toBeNull();
  });

  it('PKCE downgrade: nothing but S256, named', async () => {
    for (const who of [application, native, lax])
      for (const code_challenge_method of ['plain', 'none', 's256', 'S512', undefined])
        expect([code_challenge_method, await refusalOf({ code_challenge_method }, who)]).toEqual([
          code_challenge_method,
          'invalid_request',
        ]);
  });

  it('PKCE downgrade: a challenge that no verifier can have is refused', async () => {
    for (const who of [application, lax])
      for (const code_challenge of ['', 'short', 'x'.repeat(129), `${'x'.repeat(42)}!`])
        expect([code_challenge, await refusalOf({ code_challenge }, who)]).toEqual([
          code_challenge,
          'invalid_request',
        ]);
  });

  it('PKCE downgrade: the verifier cannot be left out, nor be the challenge itself', async () => {
    const { verifier, challenge } = newPkce();
    for (const code_verifier of [undefined, '', challenge, `${verifier}x`]) {
      const { form } = await served.code(application, { code_challenge: challenge });
      expect(await redeem({ ...form, code_verifier }, application)).toMatchObject(REFUSED);
    }
  });

  it('PKCE downgrade: a verifier for a code that was asked for without a challenge is refused', async () => {
    const { form } = await served.code(lax, WITHOUT_PKCE);
    expect(await redeem(form, lax)).toMatchObject(REFUSED);
    const second = await served.code(lax, WITHOUT_PKCE);
    expect((await redeem({ ...second.form, code_verifier: undefined }, lax)).status).toBe(200);
  });

  it('a public application proves itself by its verifier, and by no secret of another', async () => {
    const { form } = await served.code(native);
    const posed = { ...form, client_id: native.clientId, client_secret: application.secret };
    expect(await served.post('/oauth/token', posed)).toMatchObject({
      status: 401,
      body: { error: 'invalid_client' },
    });
    expect((await redeem(form, native)).status).toBe(200);
  });
});
