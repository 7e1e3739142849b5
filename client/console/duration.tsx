/** Lengths of time: said in the largest unit that fits, and asked for with a unit. */
import { Group, NativeSelect, NumberInput } from '@mantine/core';
import { useState } from 'react';

const UNITS = [
  ['days', 86_400],
  ['hours', 3600],
  ['minutes', 60],
  ['seconds', 1],
] as const;

type Unit = (typeof UNITS)[number][0];

const secondsIn = (unit: Unit) => UNITS.find(([name]) => name === unit)?.[1] ?? 1;

/** The largest unit of which `seconds` is a whole number. */
function unitOf(seconds: number | null): Unit {
  if (seconds === null) return 'days';
  return UNITS.find(([, size]) => seconds > 0 && seconds % size === 0)?.[0] ?? 'seconds';
}

export function sayDuration(seconds: number): string {
  const unit = unitOf(seconds);
  const count = seconds / secondsIn(unit);
  return `${count.toLocaleString()} ${count === 1 ? unit.slice(0, -1) : unit}`;
}

export interface DurationInputProps {
  label: string;
  description?: string;
  /** In seconds; null where nothing is entered. */
  value: number | null;
  onChange: (seconds: number | null) => void;
  required?: boolean;
  /** In the unit that is chosen. */
  min?: number;
}

export function DurationInput({
  label,
  description,
  value,
  onChange,
  required,
  min = 1,
}: DurationInputProps) {
  const [unit, setUnit] = useState(unitOf(value));
  const size = secondsIn(unit);
  function choose(chosen: Unit) {
    setUnit(chosen);
    if (value !== null) onChange((value / size) * secondsIn(chosen));
  }
  return (
    <Group align="flex-end" gap="xs" wrap="nowrap">
      <NumberInput
        flex={1}
        label={label}
        description={description}
        value={value === null ? '' : value / size}
        onChange={(entered) => onChange(entered === '' ? null : Math.round(Number(entered) * size))}
        min={min}
        required={required ?? false}
      />
      <NativeSelect
        aria-label={`Unit of ${label.toLowerCase()}`}
        value={unit}
        onChange={(event) => choose(event.currentTarget.value as Unit)}
        data={UNITS.map(([name]) => name)}
      />
    </Group>
  );
}
