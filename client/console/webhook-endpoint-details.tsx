/** One webhook endpoint: how it fares, what it was sent, and how its signatures are checked. */
import {
  Anchor,
  Button,
  Code,
  Group,
  NativeSelect,
  Stack,
  Tabs,
  Text,
  TextInput,
  Title,
} from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { useChange } from './change.ts';
import { countersign } from './countersign.ts';
import { Deliveries } from './deliveries.tsx';
import { ConfirmButton, DialogButton, EnableButton, SecretButton } from './dialog-buttons.tsx';
import { DurationInput } from './duration.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { EditWebhookEndpoint, type WebhookEndpoint } from './webhook-endpoint-form.tsx';
import { RECEIVERS } from './webhook-examples.ts';
import { EndpointState } from './webhooks.tsx';

const NOUN = 'webhookEndpoints';

export function WebhookEndpointDetails() {
  const { id = '' } = useParams();
  const endpoint = useQuery({
    queryKey: [NOUN, 'one', id],
    queryFn: () => countersign.webhookEndpoints.get.query({ id }),
  });
  return (
    <Stack>
      <Anchor component={Link} to="/webhooks" size="sm">
        All endpoints
      </Anchor>
      <Failure error={endpoint.error} onRetry={endpoint.refetch} />
      {endpoint.data && <Details endpoint={endpoint.data} />}
    </Stack>
  );
}

function Details({ endpoint }: { endpoint: WebhookEndpoint }) {
  return (
    <Stack gap="xl">
      <Stack>
        <Group justify="space-between">
          <Group>
            <Title order={2} size="h3" style={{ overflowWrap: 'anywhere' }}>
              {endpoint.url}
            </Title>
            <EndpointState endpoint={endpoint} />
          </Group>
          <Actions endpoint={endpoint} />
        </Group>
        <Facts
          facts={{
            Id: <Code>{endpoint.id}</Code>,
            Description: endpoint.description ?? '–',
            Events: endpoint.eventTypes.join(', ') || 'all',
            Subjects: endpoint.subjects?.join(', ') ?? 'any, and none',
            'Public key': endpoint.publicKey ? <Code>{endpoint.publicKey}</Code> : '–',
            'The secret before signs until': <Time at={endpoint.previousSecretExpiresAt} never="–" />,
            'Fails since': <Time at={endpoint.failingSince} never="–" />,
            'Last success': <Time at={endpoint.lastSuccessAt} />,
            Created: <Time at={endpoint.createdAt} />,
          }}
        />
      </Stack>
      <Stack>
        <Title order={3} size="h4">
          Deliveries
        </Title>
        <Deliveries endpointId={endpoint.id} />
      </Stack>
      <Stack>
        <Title order={3} size="h4">
          How to check the signature
        </Title>
        <Tabs defaultValue={RECEIVERS[0].name} keepMounted={false}>
          <Tabs.List mb="sm">
            {RECEIVERS.map(({ name }) => (
              <Tabs.Tab key={name} value={name}>
                {name}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          {RECEIVERS.map(({ name, code }) => (
            <Tabs.Panel key={name} value={name}>
              {/* Whoever scrolls by keyboard reaches it. */}
              <Code block tabIndex={0}>
                {code}
              </Code>
            </Tabs.Panel>
          ))}
        </Tabs>
      </Stack>
    </Stack>
  );
}

function Actions({ endpoint }: { endpoint: WebhookEndpoint }) {
  const mayCall = useMayCall();
  const navigate = useNavigate();
  const { id, url, enabled } = endpoint;
  return (
    <Group gap="xs">
      {mayCall('webhookEndpoints.test') && endpoint.enabled && <Test endpoint={endpoint} />}
      {mayCall('deliveries.replay') && (
        <DialogButton size="xs" variant="default" label="Replay" title="Send once more">
          {(close) => <ReplayForm endpointId={id} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('webhookEndpoints.update') && (
        <DialogButton size="xs" variant="default" label="Edit" title="Edit webhook endpoint">
          {(close) => <EditWebhookEndpoint endpoint={endpoint} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('webhookEndpoints.rotateSecret') && (
        <SecretButton
          size="xs"
          variant="default"
          label="Rotate secret"
          title="Rotate signing secret"
          shownAs="The new signing secret"
        >
          {(done, close) => <RotateSigningSecret id={id} onDone={done} onCancel={close} />}
        </SecretButton>
      )}
      {mayCall('webhookEndpoints.disable') && (
        <EnableButton noun={NOUN} id={id} enabled={enabled} calls={countersign.webhookEndpoints} />
      )}
      {mayCall('webhookEndpoints.delete') && (
        <ConfirmButton
          noun={NOUN}
          label="Delete"
          title="Delete endpoint"
          name={url}
          act={() => countersign.webhookEndpoints.delete.mutate({ id })}
          onDone={() => navigate('/webhooks')}
        >
          Nothing more is sent to it, and what it was sent is forgotten.
        </ConfirmButton>
      )}
    </Group>
  );
}

function Test({ endpoint: { id } }: { endpoint: WebhookEndpoint }) {
  const testing = useChange(
    'deliveries',
    () => countersign.webhookEndpoints.test.mutate({ id }),
    () => notifications.show({ message: 'A test is on its way: see the deliveries' }),
  );
  return (
    <>
      <Button size="xs" onClick={() => testing.mutate(undefined)} loading={testing.isPending}>
        Send a test
      </Button>
      <Failure error={testing.error} />
    </>
  );
}

/** Called again and again until all is put back: each call is bounded. */
function ReplayForm({ endpointId, onDone }: { endpointId: string; onDone: () => void }) {
  const [which, setWhich] = useState<'dead' | 'all'>('dead');
  const [from, setFrom] = useState('');
  const [to, setTo] = useState('');
  const [count, setCount] = useState(0);

  async function replay() {
    const range = {
      ...(from && { from: new Date(from).getTime() }),
      ...(to && { to: new Date(to).getTime() }),
    };
    let cursor: string | null = null;
    let total = 0;
    do {
      const replayed: { count: number; nextCursor: string | null } =
        await countersign.deliveries.replay.mutate({
          endpointId,
          which,
          ...range,
          ...(cursor && { cursor }),
        });
      total += replayed.count;
      setCount(total);
      cursor = replayed.nextCursor;
    } while (cursor !== null);
    return total;
  }

  const replaying = useChange('deliveries', replay, (total) => {
    notifications.show({ message: `${total.toLocaleString()} deliveries are sent once more` });
    onDone();
  });
  return (
    <DialogForm
      action={replaying}
      label="Send once more"
      onSubmit={() => replaying.mutate(undefined)}
      onCancel={onDone}
    >
      <NativeSelect
        label="Which"
        value={which}
        onChange={(event) => setWhich(event.currentTarget.value as 'dead' | 'all')}
        data={[
          { value: 'dead', label: 'Those that were given up' },
          { value: 'all', label: 'All, those that arrived too' },
        ]}
      />
      <TextInput
        label="From"
        description="By the clock of this browser; empty for all"
        type="datetime-local"
        value={from}
        onChange={(event) => setFrom(event.currentTarget.value)}
      />
      <TextInput
        label="Until"
        type="datetime-local"
        value={to}
        onChange={(event) => setTo(event.currentTarget.value)}
      />
      {replaying.isPending && (
        <Text size="sm" role="status">
          {count.toLocaleString()} so far
        </Text>
      )}
    </DialogForm>
  );
}

const OVERLAP_SECONDS = 86_400;

function RotateSigningSecret({
  id,
  onDone,
  onCancel,
}: {
  id: string;
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const [overlapSeconds, setOverlapSeconds] = useState<number | null>(OVERLAP_SECONDS);
  const rotating = useChange(
    NOUN,
    () => countersign.webhookEndpoints.rotateSecret.mutate({ id, overlapSeconds: overlapSeconds ?? 0 }),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <DialogForm
      action={rotating}
      label="Rotate"
      onSubmit={() => rotating.mutate(undefined)}
      onCancel={onCancel}
    >
      <DurationInput
        label="Overlap"
        description="How long both secrets sign"
        value={overlapSeconds}
        onChange={setOverlapSeconds}
        min={0}
      />
    </DialogForm>
  );
}
