/** Dates and spans of time, in the language of whoever reads them. */
const MINUTE_MS = 60_000;

const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 365 * 24 * 60 * MINUTE_MS],
  ['month', 30 * 24 * 60 * MINUTE_MS],
  ['day', 24 * 60 * MINUTE_MS],
  ['hour', 60 * MINUTE_MS],
  ['minute', MINUTE_MS],
];

export const dateOf = (at: number, locale?: string) =>
  new Intl.DateTimeFormat(locale, { dateStyle: 'medium' }).format(at);

export const dateTimeOf = (at: number, locale?: string) =>
  new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'long' }).format(at);

/** As in "3 days ago". */
export function agoOf(at: number, now: number, locale?: string): string {
  const format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
  const [unit, length] = unitOf(now - at);
  return format.format(-Math.floor((now - at) / length), unit);
}

/** As in "3 days", rounded up: what is left is never said to be nothing. */
export function spanOf(ms: number, locale?: string): string {
  const [unit, length] = unitOf(ms);
  return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'long' }).format(
    Math.max(1, Math.ceil(ms / length)),
  );
}

const unitOf = (ms: number): [Intl.RelativeTimeFormatUnit, number] =>
  UNITS.find(([, length]) => ms >= length) ?? ['minute', MINUTE_MS];
