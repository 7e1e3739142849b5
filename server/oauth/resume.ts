/** Where the host application sends the browser of a user who was handed to it: back, with a value that is good once. */
import { takeOutcome } from '../domain/interaction-outcomes.ts';
import { giveConsent } from '../domain/oauth-consents.ts';
import { findInteraction } from '../domain/oauth-interactions.ts';
import {
  authorizationOf,
  continueInteraction,
  readInteractionRequest,
  toldByRedirect,
} from './authorization.ts';
import { respond } from './authorization-response.ts';
import { cookieIn } from './cookies.ts';
import type { OauthEndpoint } from './endpoint.ts';
import { cancel, finishSignIn, interactionNotFound } from './sign-in.ts';

const VALUE_LENGTH_MAX = 128;

type GoOn = typeof continueInteraction;

export const resumeEndpoint: OauthEndpoint = {
  path: '/oauth/resume',
  methods: ['GET'],
  body: 'none',
  bytesMax: 0,
  cors: false,
  refusals: 'page',
  async answer(request) {
    const { deps, query } = request;
    const value = query.get('value') ?? '';
    const browser = cookieIn(request, 'browser');
    const taken = value.length > VALUE_LENGTH_MAX ? null : await takeOutcome(deps, value, browser);
    const interaction = taken && (await findInteraction(deps, taken.interactionId, browser));
    if (!taken || !interaction) throw interactionNotFound();
    if ('denied' in taken.outcome) return cancel(request, interaction, taken.outcome.denied);
    const { user, consent } = taken.outcome.completed;
    return finishSignIn(request, interaction, user, consent ? withConsent(consent) : continueInteraction);
  },
};

/** What the user consented to at the host application stands for what they would have here. */
const withConsent =
  (consent: { scopes: string[]; organizationId: string | null }): GoOn =>
  async (request, interaction, user) => {
    const { deps, requestId } = request;
    const { target, check } = await readInteractionRequest(request, interaction);
    return toldByRedirect(target, async () => {
      const asked = await check();
      const scopes = asked.scopes.filter((scope) => consent.scopes.includes(scope));
      const authorization = authorizationOf({ ...asked, scopes }, user, consent.organizationId);
      return respond(target, { code: await giveConsent(deps, interaction.id, authorization, requestId) });
    });
  };
