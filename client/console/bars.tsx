/** Bars side by side, of what was valid and what was refused. Whoever does not see them is told the same in words beside. */
const HEIGHT = 100;
const BAR = 8;
const GAP = 2;

export interface Bar {
  key: number;
  /** Its place from the left. */
  place: number;
  valid: number;
  refused: number;
}

export function Bars({ bars, places }: { bars: readonly Bar[]; places: number }) {
  const highest = Math.max(1, ...bars.map(({ valid, refused }) => valid + refused));
  const heightOf = (count: number) => (count / highest) * HEIGHT;
  return (
    <svg
      viewBox={`0 0 ${places * (BAR + GAP)} ${HEIGHT}`}
      preserveAspectRatio="none"
      width="100%"
      height={HEIGHT}
      aria-hidden="true"
    >
      {bars.map(({ key, place, valid, refused }) => (
        <g key={key} transform={`translate(${place * (BAR + GAP)} 0)`}>
          <rect
            width={BAR}
            y={HEIGHT - heightOf(valid)}
            height={heightOf(valid)}
            fill="var(--mantine-primary-color-filled)"
          />
          <rect
            width={BAR}
            y={HEIGHT - heightOf(valid + refused)}
            height={heightOf(refused)}
            fill="var(--mantine-color-red-filled)"
          />
        </g>
      ))}
    </svg>
  );
}
