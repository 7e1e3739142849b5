/** Verifying: the routes are hot, and have the names of our own API. */
import { z } from 'zod';
import { VERIFY_REASONS, verifyBatchInput, verifyInput } from '../domain/credentials.ts';
import { at, claimsOutput, count, named } from './fields.ts';
import { hotRoute, type Route } from './route.ts';

export const verificationOutput = named(
  'Verification',
  z.union([
    z.object({
      valid: z.literal(true),
      kind: z.enum(['m2m_token', 'api_key', 'oauth_token']),
      id: z.string(),
      subject: z.string(),
      machineId: z.string().optional(),
      clientId: z.string().optional(),
      applicationId: z.string().optional(),
      applicationName: z.string().optional(),
      grantId: z.string().optional(),
      organizationId: z.string().optional(),
      name: z.string().optional(),
      audience: z.array(z.string()).optional(),
      scopes: z.array(z.string()),
      claims: claimsOutput,
      expiresAt: at.nullable(),
      rateLimit: z.object({ count, windowSeconds: count, remaining: count }).optional(),
      creditsRemaining: count.optional(),
      boundToAddresses: z.literal(true).optional(),
    }),
    z.object({
      valid: z.literal(false),
      reason: z.enum(VERIFY_REASONS),
      id: z.string().optional(),
      subject: z.string().optional(),
      retryAfterMs: z.number().optional(),
    }),
  ]),
);

export const credentialRoutes: readonly Route[] = [
  hotRoute('POST /v1/verify', 'credentials.verify', {
    naming: 'as is',
    input: verifyInput,
    output: verificationOutput,
  }),
  hotRoute('POST /v1/verify/batch', 'credentials.verifyBatch', {
    naming: 'as is',
    input: verifyBatchInput,
    output: z.array(verificationOutput),
  }),
];
