import { authorize, presentedBy } from '../authenticate.ts';
import { type Authorize, verify, verifyBatch, verifyBatchInput, verifyInput } from '../domain/credentials.ts';
import type { Presented } from '../domain/secrets.ts';
import { type CallContext, procedure, router } from './base.ts';

/** Mutations, although they change nothing: a query's input may end up in a URL, and these carry credentials. */
export const credentialsRouter = router({
  verify: procedure
    .meta({
      description: 'Verify a credential: whom it stands for and what it may do right now',
      idempotent: true,
    })
    .input(verifyInput)
    .mutation(({ ctx, input }) =>
      verify(ctx.deps, presentedIn(ctx), input, authorizingAs('credentials.verify')),
    ),
  verifyBatch: procedure
    .meta({ description: 'Verify up to 100 credentials, answered in order', idempotent: true })
    .input(verifyBatchInput)
    .mutation(({ ctx, input }) =>
      verifyBatch(ctx.deps, presentedIn(ctx), input, authorizingAs('credentials.verifyBatch')),
    ),
});

/** Who is signed in to the console presents nothing, and was found by their session. */
export const presentedIn = (context: CallContext): Presented => ({
  ...presentedBy(context),
  ...(context.authorization === undefined && { signedIn: context.caller.principal }),
});

/** The authenticator's judgement once more, on the principal as it is read together with the credential. */
export const authorizingAs =
  (path: string): Authorize =>
  (principal) =>
    authorize(principal, path, true);
