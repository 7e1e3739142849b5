/** Rotating a secret: with an overlap that counts down and can be cancelled or completed, or at once. */
import { Alert, Button, Checkbox, Group, NativeSelect, Stack, Text, TextInput } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { useChange } from './change.ts';
import { countersign, type Inputs, type Outputs } from './countersign.ts';
import { DurationInput, sayDuration } from './duration.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { useMayCall } from './permission.ts';

/** Nouns whose secrets rotate, as their queries and their events are called. */
type Noun = 'machines' | 'apiKeys' | 'secretKeys' | 'oauthApplications';

const EVENTS = {
  machines: 'machine.secret_',
  apiKeys: 'api_key.secret_',
  secretKeys: 'secret_key.secret_',
  oauthApplications: 'oauth_application.secret_',
} as const satisfies Record<Noun, string>;

type LoggedEvent = Outputs['events']['list']['data'][number];

/** An overlap lasts at most 30 days: of more rotations than these, the oldest are over or nobody's concern any more. */
const ROTATIONS_MAX = 200;

const keyOf = (noun: Noun, id?: string) => [noun, 'overlaps', id ?? 'all'];

/**
 * Until when the secret before is accepted too, by owner: of one, or of all. The log says so; who may not read it knows of
 * those that were begun here.
 */
export function useOverlaps(noun: Noun, id?: string): ReadonlyMap<string, number> {
  const mayCall = useMayCall();
  const overlaps = useQuery({
    queryKey: keyOf(noun, id),
    queryFn: () => readOverlaps(noun, id),
    enabled: mayCall('events.list'),
  });
  return overlaps.data ?? new Map();
}

async function readOverlaps(noun: Noun, objectId?: string): Promise<ReadonlyMap<string, number>> {
  const newest = (what: 'rotated' | 'rotation_cancelled' | 'rotation_completed') =>
    countersign.events.list.query({
      type: `${EVENTS[noun]}${what}`,
      newestFirst: true,
      limit: objectId === undefined ? ROTATIONS_MAX : 1,
      ...(objectId !== undefined && { objectId }),
    });
  // In one request, as all that is asked for at once.
  const [rotated, ...ended] = await Promise.all([
    newest('rotated'),
    newest('rotation_cancelled'),
    newest('rotation_completed'),
  ]);
  return overlapsOf(
    rotated.data,
    ended.flatMap(({ data }) => data),
  );
}

/** Of rotations, the newest first, those whose overlap nobody ended and that is not over. */
function overlapsOf(rotated: readonly LoggedEvent[], ended: readonly LoggedEvent[]): Map<string, number> {
  const overlaps = new Map<string, number>();
  const seen = new Set<string>();
  for (const { objectId, seq, data } of rotated) {
    if (seen.has(objectId)) continue;
    seen.add(objectId);
    const endsAt = data?.['previousExpiresAt'];
    const wasEnded = ended.some((end) => end.objectId === objectId && end.seq > seq);
    if (typeof endsAt === 'number' && endsAt > Date.now() && !wasEnded) overlaps.set(objectId, endsAt);
  }
  return overlaps;
}

type RotateInput = Pick<Inputs['machines']['rotateSecret'], 'id' | 'overlapSeconds' | 'compromised'>;
type Rotated = { id: string; secret?: string; previousExpiresAt: number | null };

const DEFAULT_OVERLAP_SECONDS = 86_400;

export function RotateForm({
  noun,
  id,
  nameToType,
  rotate,
  onDone,
  onCancel,
}: {
  noun: Noun;
  id: string;
  /** Is to be typed before all is replaced at once, where that ends what many others hold. */
  nameToType?: string;
  rotate: (input: RotateInput) => Promise<Rotated>;
  /** Told the new value. */
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const queries = useQueryClient();
  const [overlapSeconds, setOverlapSeconds] = useState<number | null>(DEFAULT_OVERLAP_SECONDS);
  const [compromised, setCompromised] = useState(false);
  const [typed, setTyped] = useState('');
  const rotating = useChange(noun, rotate, (rotated) => {
    const { secret = null, previousExpiresAt } = rotated;
    queries.setQueryData(
      keyOf(noun, id),
      new Map(previousExpiresAt === null ? [] : [[id, previousExpiresAt]]),
    );
    onDone(secret);
  });
  return (
    <DialogForm
      action={rotating}
      label={compromised ? 'Replace at once' : 'Rotate'}
      isReady={compromised ? typed === (nameToType ?? '') : overlapSeconds !== null}
      {...(compromised && { color: 'red' })}
      onSubmit={() =>
        rotating.mutate(compromised || overlapSeconds === null ? { id, compromised } : { id, overlapSeconds })
      }
      onCancel={onCancel}
    >
      <Text size="sm">It is given a new value. The one before is accepted too until the overlap ends.</Text>
      {!compromised && (
        <DurationInput
          label="Overlap"
          description="How long both are accepted: 0 to 30 days"
          value={overlapSeconds}
          onChange={setOverlapSeconds}
          min={0}
        />
      )}
      <Checkbox
        label="Somebody else may have it"
        description="The value before ends at once, with all that was issued by it"
        checked={compromised}
        onChange={(event) => setCompromised(event.currentTarget.checked)}
      />
      {compromised && nameToType !== undefined && (
        <TextInput
          label={`Type “${nameToType}” to confirm`}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          autoComplete="off"
        />
      )}
    </DialogForm>
  );
}

/** The overlap that runs, counting down. Renders nothing where there is none. */
export function Overlap({
  noun,
  id,
  endsAt,
  cancel,
  complete,
}: {
  noun: Noun;
  id: string;
  endsAt: number | undefined;
  /** Without them, who is signed in may only watch. */
  cancel?: ((input: { id: string }) => Promise<unknown>) | undefined;
  complete?: ((input: { id: string }) => Promise<unknown>) | undefined;
}) {
  const queries = useQueryClient();
  const forget = () => queries.setQueryData(keyOf(noun, id), new Map());
  const cancelling = useChange(noun, (input: { id: string }) => cancel?.(input) ?? Promise.resolve(), forget);
  const completing = useChange(
    noun,
    (input: { id: string }) => complete?.(input) ?? Promise.resolve(),
    forget,
  );
  const secondsLeft = useSecondsUntil(endsAt ?? 0);
  if (endsAt === undefined || secondsLeft <= 0) return null;
  return (
    <Alert color="blue" title="Two values are accepted" data-testid="overlap">
      <Stack gap="xs">
        <Text size="sm">
          The one before ends in{' '}
          <Text span inherit fw={700} role="timer">
            {countdown(secondsLeft)}
          </Text>
        </Text>
        {cancel && complete && (
          <Group gap="xs">
            <Button
              size="xs"
              variant="default"
              onClick={() => completing.mutate({ id })}
              loading={completing.isPending}
            >
              End the old value now
            </Button>
            <Button
              size="xs"
              variant="default"
              onClick={() => cancelling.mutate({ id })}
              loading={cancelling.isPending}
            >
              Take the new value back
            </Button>
          </Group>
        )}
        <Failure error={cancelling.error ?? completing.error} />
      </Stack>
    </Alert>
  );
}

function useSecondsUntil(at: number): number {
  const [now, setNow] = useState(Date.now);
  const isOver = at <= now;
  useEffect(() => {
    if (isOver) return;
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, [isOver]);
  return Math.ceil((at - now) / 1_000);
}

function countdown(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  const clock = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
  return days === 0 ? clock : `${sayDuration(days * 86_400)} ${clock}`;
}

type RotationPolicy = NonNullable<Outputs['machines']['get']['rotation']>;

export function RotationPolicyInput({
  value,
  onChange,
}: {
  value: RotationPolicy | null;
  onChange: (policy: RotationPolicy | null) => void;
}) {
  const { periodSeconds = null, atDeadline = 'warn' } = value ?? {};
  return (
    <Stack gap="xs">
      <DurationInput
        label="Rotate every"
        description="At least an hour; empty for never"
        value={periodSeconds}
        onChange={(seconds) => onChange(seconds === null ? null : { periodSeconds: seconds, atDeadline })}
      />
      {periodSeconds !== null && (
        <NativeSelect
          label="When it is overdue"
          value={atDeadline}
          onChange={(event) =>
            onChange({ periodSeconds, atDeadline: event.currentTarget.value as 'warn' | 'expire' })
          }
          data={[
            { value: 'warn', label: 'Say so, again and again' },
            { value: 'expire', label: 'Refuse it' },
          ]}
        />
      )}
    </Stack>
  );
}
