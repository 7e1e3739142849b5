/** An application's logo, for pages that ask for consent: those of this server, and of a host application. */
import { oauthApplicationId } from '../domain/fields.ts';
import { findOauthLogo } from '../domain/oauth-logos.ts';
import { CountersignError } from '../errors.ts';
import type { OauthEndpoint } from './endpoint.ts';

/** Whose follows: at `{id}`. */
export const LOGOS_PATH = '/oauth/logos/';

export const logoEndpoint: OauthEndpoint = {
  path: `${LOGOS_PATH}{id}`,
  methods: ['GET'],
  body: 'none',
  bytesMax: 0,
  cors: false,
  refusals: 'json',
  async answer({ deps, path }) {
    const id = oauthApplicationId.safeParse(path.slice(LOGOS_PATH.length)).data;
    const logo = id === undefined ? null : await findOauthLogo(deps, id);
    if (!logo) throw new CountersignError('not_found', 'No application with a logo has this id');
    return {
      status: 200,
      headers: {
        'Content-Type': logo.type,
        // An administrator chose it, and nobody checked what else is in the file.
        'X-Content-Type-Options': 'nosniff',
        'Content-Security-Policy': "default-src 'none'; sandbox",
        'Cross-Origin-Resource-Policy': 'cross-origin',
        'Cache-Control': 'public, max-age=300',
      },
      body: logo.bytes,
    };
  },
};
