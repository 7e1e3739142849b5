/** Deliveries of events to a webhook endpoint, and the attempts at each. */
import { Anchor, Button, Code, Group, NativeSelect, Stack, Table, Text, Title } from '@mantine/core';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useParams } from 'react-router';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { Empty } from './empty.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

type Delivery = Outputs['deliveries']['get'];

const STATES = ['pending', 'delivered', 'dead'] as const;
const MEANING: Record<Delivery['state'], string> = {
  pending: 'owed',
  delivered: 'arrived',
  dead: 'given up',
};

const AGAIN_MS = 3_000;

export function Deliveries({ endpointId }: { endpointId: string }) {
  const [state, setState] = useState('');
  const paging = usePaging(`${endpointId} ${state}`);
  const chosen = STATES.find((each) => each === state);
  const input = {
    endpointId,
    limit: 20,
    ...(chosen && { state: chosen }),
    ...(paging.cursor && { cursor: paging.cursor }),
  };
  const deliveries = useQuery({
    queryKey: ['deliveries', 'list', input],
    queryFn: () => countersign.deliveries.list.query(input),
    placeholderData: keepPreviousData,
    refetchInterval: AGAIN_MS,
  });
  const data = deliveries.data?.data ?? [];
  return (
    <Stack>
      <NativeSelect
        label="State"
        value={state}
        onChange={(event) => setState(event.currentTarget.value)}
        data={[{ value: '', label: 'Any' }, ...STATES.map((each) => ({ value: each, label: MEANING[each] }))]}
        maw={200}
      />
      <Failure error={deliveries.error} onRetry={deliveries.refetch} />
      {deliveries.data && data.length === 0 && (
        <Empty title="No deliveries">Send a test, and it is here a moment later.</Empty>
      )}
      {data.length > 0 && (
        <Table.ScrollContainer minWidth={560}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Delivery</Table.Th>
                <Table.Th>State</Table.Th>
                <Table.Th>Attempts</Table.Th>
                <Table.Th>Last answer</Table.Th>
                <Table.Th>Of</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((delivery) => (
                <Table.Tr key={delivery.id}>
                  <Table.Td>
                    <Anchor component={Link} to={`/webhooks/deliveries/${delivery.id}`} size="sm">
                      {delivery.id}
                    </Anchor>
                  </Table.Td>
                  <Table.Td>{MEANING[delivery.state]}</Table.Td>
                  <Table.Td>{delivery.attempt}</Table.Td>
                  <Table.Td>{delivery.lastStatus ?? delivery.lastError ?? '–'}</Table.Td>
                  <Table.Td>
                    <Time at={delivery.createdAt} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <Pages
        paging={paging}
        nextCursor={deliveries.data?.nextCursor ?? null}
        isEmpty={deliveries.data?.data.length === 0}
      />
    </Stack>
  );
}

export function DeliveryDetails() {
  const { id = '' } = useParams();
  const delivery = useQuery({
    queryKey: ['deliveries', 'one', id],
    queryFn: () => countersign.deliveries.get.query({ id }),
    refetchInterval: AGAIN_MS,
  });
  return (
    <Stack>
      {delivery.data && (
        <Anchor component={Link} to={`/webhooks/${delivery.data.endpointId}`} size="sm">
          Its endpoint
        </Anchor>
      )}
      <Failure error={delivery.error} onRetry={delivery.refetch} />
      {delivery.data && <Details delivery={delivery.data} />}
    </Stack>
  );
}

function Details({ delivery }: { delivery: Delivery }) {
  const mayCall = useMayCall();
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={2} size="h3" style={{ overflowWrap: 'anywhere' }}>
          {delivery.id}
        </Title>
        {mayCall('deliveries.resend') && <Resend delivery={delivery} />}
      </Group>
      <Facts
        facts={{
          State: MEANING[delivery.state],
          Event: (
            <Anchor component={Link} to={`/events?before=${delivery.eventSeq + 1}`} size="sm">
              {delivery.eventSeq}
            </Anchor>
          ),
          'Next attempt': <Time at={delivery.nextAt} never="none" />,
          Delivered: <Time at={delivery.deliveredAt} never="not yet" />,
          Created: <Time at={delivery.createdAt} />,
        }}
      />
      <Title order={3} size="h4">
        Attempts
      </Title>
      {delivery.attempts.length === 0 ? (
        <Text size="sm">None has ended yet</Text>
      ) : (
        <Table.ScrollContainer minWidth={560}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Attempt</Table.Th>
                <Table.Th>Began</Table.Th>
                <Table.Th>Took</Table.Th>
                <Table.Th>Answer</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {delivery.attempts.map(({ attempt, beganAt, endedAt, status, error, response }) => (
                <Table.Tr key={attempt}>
                  <Table.Td>{attempt}</Table.Td>
                  <Table.Td>
                    <Time at={beganAt} />
                  </Table.Td>
                  <Table.Td>{(endedAt - beganAt).toLocaleString()} ms</Table.Td>
                  <Table.Td>
                    {status ?? error}
                    {response && <Code block>{response}</Code>}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

function Resend({ delivery: { id } }: { delivery: Delivery }) {
  const resending = useChange('deliveries', () => countersign.deliveries.resend.mutate({ id }));
  return (
    <>
      <Button size="xs" onClick={() => resending.mutate(undefined)} loading={resending.isPending}>
        Send once more
      </Button>
      <Failure error={resending.error} />
    </>
  );
}
