/** Verifications by day: as bars, and as a table for those who do not see them. */
import { Group, Stack, Text, VisuallyHidden } from '@mantine/core';
import { Bars } from './bars.tsx';

const DAY_MS = 86_400_000;

export interface UsageChartProps {
  /** Milliseconds since 1970-01-01 UTC, where days begin. */
  from: number;
  to: number;
  /** A day without any verification has no entry. */
  usage: readonly { at: number; valid: number; refused: number }[];
}

export function UsageChart({ from, to, usage }: UsageChartProps) {
  const highest = Math.max(...usage.map(({ valid, refused }) => valid + refused), 0);
  if (highest === 0)
    return (
      <Text size="sm" c="dimmed">
        Not verified in this time
      </Text>
    );
  const sum = (field: 'valid' | 'refused') => usage.reduce((total, entry) => total + entry[field], 0);
  return (
    <Stack gap="xs">
      <Group gap="lg">
        <Text size="sm">{sum('valid').toLocaleString()} valid</Text>
        <Text size="sm">{sum('refused').toLocaleString()} refused</Text>
        <Text size="sm" c="dimmed">
          at most {highest.toLocaleString()} a day
        </Text>
      </Group>
      <Bars
        places={Math.round((to - from) / DAY_MS)}
        bars={usage.map(({ at, ...counts }) => ({
          key: at,
          place: Math.round((at - from) / DAY_MS),
          ...counts,
        }))}
      />
      <VisuallyHidden>
        <table>
          <thead>
            <tr>
              <th scope="col">Day</th>
              <th scope="col">Valid</th>
              <th scope="col">Refused</th>
            </tr>
          </thead>
          <tbody>
            {usage.map(({ at, valid, refused }) => (
              <tr key={at}>
                <th scope="row">{new Date(at).toISOString().slice(0, 10)}</th>
                <td>{valid}</td>
                <td>{refused}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </VisuallyHidden>
    </Stack>
  );
}
