import { ERRORS } from '../server/errors.ts';

/** `docs/errors.md`, from the one table of codes. */
export function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { status, retryable, meaning }]) =>
      `| \`${code}\` | ${status === 0 ? '–' : status} | ${retryable ? 'yes' : 'no'} | ${meaning} |`,
  );
  return `# Error codes

<!-- Generated from server/errors.ts by \`npm run docs\`. -->

A refusal carries one of these codes, a message saying what was wanted and what was found, and the id of the request.
The set is closed: switch on the code, show people the message. A credential that does not verify is not an error but
an answer, \`{ valid: false, reason }\`.

*Retryable* says whether the same call may succeed later. After \`timeout\`, \`network\` and \`outcome_unknown\` it is
unknown whether anything was changed: repeat only calls that are safe to repeat.

| code | HTTP status | retryable | meaning |
| --- | --- | --- | --- |
${rows.join('\n')}
`;
}
