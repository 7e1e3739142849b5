/** Logos of OAuth applications, as files. */
import { z } from 'zod';
import { oauthApplicationId } from '../domain/fields.ts';
import { deleteOauthLogo, LOGO_BYTES_MAX, oauthLogoInput, saveOauthLogo } from '../domain/oauth-logos.ts';
import { applicationOutput, present } from './oauth-applications.ts';
import { type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';
const naming = { applicationId: 'id' };

/** What is written around a file: boundaries, headers, and who uploads it. */
const AROUND_BYTES = 4 * 1024;

export const oauthLogoRoutes: readonly Route[] = [
  route('PUT /v1/oauth_applications/{id}/logo', 'oauthLogos.set', {
    clerk,
    naming,
    body: 'multipart/form-data',
    bytesMax: LOGO_BYTES_MAX + AROUND_BYTES,
    input: z.strictObject({
      applicationId: oauthApplicationId,
      file: z.instanceof(Buffer, { error: 'wanted a file' }),
      // Clerk's: the log says which key it was.
      uploaderUserId: z.string().max(255).optional(),
    }),
    inputShape: z.strictObject({
      applicationId: oauthApplicationId,
      file: z.string().meta({ format: 'binary' }),
      uploaderUserId: z.string().max(255).optional(),
    }),
    output: applicationOutput,
    run: async (call, { applicationId, file }) =>
      present(call, await saveOauthLogo(call.deps, call.caller, applicationId, file)),
  }),
  route('DELETE /v1/oauth_applications/{id}/logo', 'oauthLogos.delete', {
    naming,
    input: oauthLogoInput,
    output: applicationOutput,
    run: async (call, input) => present(call, await deleteOauthLogo(call.deps, call.caller, input)),
  }),
];
