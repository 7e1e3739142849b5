/** How often an API key was verified, by day: as bars, and as a list for those who do not see them. */
import { useEffect, useState } from 'react';
import { dateOf } from './dates.ts';
import { Notice } from './key-dialogs.tsx';
import { useFailureText, usePanelSource, useTexts } from './panel-context.tsx';
import type { PanelKey, PanelKeyUsage } from './panel-source.ts';

const DAY_MS = 86_400_000;
const HEIGHT = 80;
const BAR = 8;
const GAP = 2;

interface Day {
  at: number;
  valid: number;
  refused: number;
}

export function KeyUsage({
  apiKey,
  locale,
  onClose,
}: {
  apiKey: PanelKey;
  locale: string | undefined;
  onClose: () => void;
}) {
  const texts = useTexts();
  const source = usePanelSource();
  const failureText = useFailureText();
  const [usage, setUsage] = useState<PanelKeyUsage | null>(null);
  const [error, setError] = useState<unknown>(null);

  useEffect(() => {
    const asking = new AbortController();
    source.usage({ id: apiKey.id }, asking.signal).then(setUsage, (failure: unknown) => {
      if (!asking.signal.aborted) setError(failure);
    });
    return () => asking.abort();
  }, [source, apiKey.id]);

  return (
    <Notice title={texts.usageTitle(apiKey.name)} onClose={onClose}>
      {error !== null && (
        <p className="cs-failure" role="alert">
          {failureText(error)}
        </p>
      )}
      {usage && <Chart days={daysOf(usage)} locale={locale} />}
    </Notice>
  );
}

/** A day without a verification has no entry. */
function daysOf({ from, to, usage }: PanelKeyUsage): Day[] {
  const found = new Map(usage.map((entry) => [entry.at, entry]));
  const days: Day[] = [];
  for (let at = from; at < to; at += DAY_MS) days.push(found.get(at) ?? { at, valid: 0, refused: 0 });
  return days;
}

function Chart({ days, locale }: { days: readonly Day[]; locale: string | undefined }) {
  const texts = useTexts();
  const format = new Intl.NumberFormat(locale);
  const [valid, refused] = [sumOf(days, 'valid'), sumOf(days, 'refused')];
  if (valid + refused === 0) return <p className="cs-hint">{texts.usageNone}</p>;
  const highest = Math.max(...days.map((day) => day.valid + day.refused));
  const heightOf = (count: number) => (count / highest) * HEIGHT;
  return (
    <>
      <p className="cs-hint">{texts.usageSummary(format.format(valid), format.format(refused))}</p>
      <svg
        className="cs-chart"
        viewBox={`0 0 ${days.length * (BAR + GAP)} ${HEIGHT}`}
        preserveAspectRatio="none"
        aria-hidden="true"
      >
        {days.map((day, i) => (
          <g key={day.at} transform={`translate(${i * (BAR + GAP)} 0)`}>
            <rect
              className="cs-bar"
              width={BAR}
              y={HEIGHT - heightOf(day.valid)}
              height={heightOf(day.valid)}
            />
            <rect
              className="cs-bar-refused"
              width={BAR}
              y={HEIGHT - heightOf(day.valid + day.refused)}
              height={heightOf(day.refused)}
            />
          </g>
        ))}
      </svg>
      <ul className="cs-hidden">
        {days
          .filter((day) => day.valid + day.refused > 0)
          .map((day) => (
            <li key={day.at}>
              {texts.usageDay(dateOf(day.at, locale), format.format(day.valid), format.format(day.refused))}
            </li>
          ))}
      </ul>
    </>
  );
}

const sumOf = (days: readonly Day[], field: 'valid' | 'refused') =>
  days.reduce((sum, day) => sum + day[field], 0);
