import { Text, Tooltip } from '@mantine/core';

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });

const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000_000],
  ['month', 2_592_000_000],
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1_000],
];

/** How far from now, with the exact instant for who wants it. `at` in milliseconds since 1970-01-01 UTC. */
export function Time({ at, never = 'never' }: { at: number | null | undefined; never?: string }) {
  if (at === null || at === undefined)
    return (
      <Text span inherit c="dimmed">
        {never}
      </Text>
    );
  return (
    <Tooltip label={EXACT.format(at)}>
      <time dateTime={new Date(at).toISOString()}>{relative(at - Date.now())}</time>
    </Tooltip>
  );
}

function relative(ms: number): string {
  const [unit, size] = UNITS.find(([, each]) => Math.abs(ms) >= each) ?? ['second', 1_000];
  return RELATIVE.format(Math.round(ms / size), unit);
}
