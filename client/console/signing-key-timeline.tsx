/** When each signing key was published, signed, and verified still: bars beside each other, with now marked. */
import { Text, VisuallyHidden } from '@mantine/core';
import type { Outputs } from './countersign.ts';

type SigningKey = Outputs['signingKeys']['list'][number];

const ROW = 22;
const WIDTH = 600;
const DAY_MS = 86_400_000;
/** Keys that are shown; older ones are long retired. */
const KEYS_MAX = 8;

export function SigningKeyTimeline({ keys }: { keys: readonly SigningKey[] }) {
  const now = Date.now();
  const shown = keys.slice(0, KEYS_MAX);
  const begin = Math.min(...shown.map(({ createdAt }) => createdAt)) - DAY_MS;
  const end = now + DAY_MS;
  const x = (at: number) => ((at - begin) / (end - begin)) * WIDTH;
  return (
    <figure style={{ margin: 0 }}>
      <VisuallyHidden component="figcaption">
        When keys were published, signed and verified: the table below has the same
      </VisuallyHidden>
      <svg viewBox={`0 0 ${WIDTH} ${shown.length * ROW}`} width="100%" aria-hidden="true">
        {shown.map(({ kid, createdAt, activatedAt, retiredAt }, i) => {
          const until = retiredAt ?? now;
          return (
            <g key={kid} transform={`translate(0 ${i * ROW})`}>
              <rect
                x={x(createdAt)}
                width={Math.max(2, x(until) - x(createdAt))}
                y={7}
                height={8}
                fill="var(--mantine-color-gray-5)"
              />
              {activatedAt !== null && (
                <rect
                  x={x(activatedAt)}
                  width={Math.max(2, x(until) - x(activatedAt))}
                  y={3}
                  height={16}
                  fill="var(--mantine-primary-color-filled)"
                />
              )}
            </g>
          );
        })}
        <line
          x1={x(now)}
          x2={x(now)}
          y1={0}
          y2={shown.length * ROW}
          stroke="var(--mantine-color-red-filled)"
          strokeWidth={2}
        />
      </svg>
      <Text size="xs" c="dimmed">
        Thin: published and verifying. Thick: signs, or has signed and verifies still. The line is now.
      </Text>
    </figure>
  );
}
