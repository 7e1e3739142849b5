/** Subjects: what all API keys of one share. */
import { z } from 'zod';
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
import { at, count, limitOutput, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const subjectOutput = named(
  'Subject',
  z.object({
    id: z.string(),
    enabled: z.boolean(),
    rateLimit: limitOutput,
    createdAt: at.nullable(),
    updatedAt: at.nullable(),
    // Of one subject, where it was looked up.
    remainingCredits: count.nullable().optional(),
  }),
);

export const subjectRoutes: readonly Route[] = [
  route('GET /v1/subjects', 'subjects.list', {
    input: listSubjectsInput,
    output: pageOf(subjectOutput),
    run: ({ deps }, input) => listSubjects(deps, input),
  }),
  route('GET /v1/subjects/{id}', 'subjects.get', {
    input: subjectIdInput,
    output: subjectOutput,
    run: ({ deps }, input) => getSubject(deps, input),
  }),
  route('PUT /v1/subjects/{id}', 'subjects.set', {
    input: setSubjectInput,
    output: subjectOutput,
    run: ({ deps, caller }, input) => setSubject(deps, caller, input),
  }),
  route('PUT /v1/subjects/{id}/credits', 'subjects.setCredits', {
    input: setSubjectCreditsInput,
    output: subjectOutput,
    run: ({ deps, caller }, input) => setSubjectCredits(deps, caller, input),
  }),
  route('POST /v1/subjects/{id}/enable', 'subjects.enable', {
    input: subjectIdInput,
    output: subjectOutput,
    run: ({ deps, caller }, input) => setSubjectEnabled(deps, caller, input, true),
  }),
  route('POST /v1/subjects/{id}/disable', 'subjects.disable', {
    input: subjectIdInput,
    output: subjectOutput,
    run: ({ deps, caller }, input) => setSubjectEnabled(deps, caller, input, false),
  }),
];
