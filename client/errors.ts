/** `countersign/errors`: the errors alone, for those who handle them where no call is made. */
export { CountersignError, ERRORS, type ErrorCode } from '../server/errors.ts';
