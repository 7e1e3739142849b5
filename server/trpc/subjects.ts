import {
  getSubject,
  listSubjects,
  listSubjectsInput,
  setSubject,
  setSubjectCredits,
  setSubjectCreditsInput,
  setSubjectEnabled,
  setSubjectInput,
  subjectIdInput,
} from '../domain/subjects.ts';
import { procedure, router } from './base.ts';

export const subjectsRouter = router({
  get: procedure
    .meta({ description: 'Show what all API keys of a subject share' })
    .input(subjectIdInput)
    .query(({ ctx, input }) => getSubject(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List the subjects for which something was set' })
    .input(listSubjectsInput)
    .query(({ ctx, input }) => listSubjects(ctx.deps, input)),
  set: procedure
    .meta({ description: 'Set the rate limit that all API keys of a subject share', idempotent: true })
    .input(setSubjectInput)
    .mutation(({ ctx, input }) => setSubject(ctx.deps, ctx.caller, input)),
  setCredits: procedure
    .meta({
      description: 'Set what all API keys of a subject may spend together; null takes that limit away',
    })
    .input(setSubjectCreditsInput)
    .mutation(({ ctx, input }) => setSubjectCredits(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Enable a disabled subject', idempotent: true })
    .input(subjectIdInput)
    .mutation(({ ctx, input }) => setSubjectEnabled(ctx.deps, ctx.caller, input, true)),
  disable: procedure
    .meta({
      description: 'Disable a subject: none of its API keys verifies until it is enabled',
      idempotent: true,
    })
    .input(subjectIdInput)
    .mutation(({ ctx, input }) => setSubjectEnabled(ctx.deps, ctx.caller, input, false)),
});
