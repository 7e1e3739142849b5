/** Webhooks: where events are sent, what became of each, and sending them once more. */
import { Anchor, Badge, Group, Stack, Table, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, Route, Routes } from 'react-router';
import { countersign } from './countersign.ts';
import { DeliveryDetails } from './deliveries.tsx';
import { SecretButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { WebhookEndpointDetails } from './webhook-endpoint-details.tsx';
import { CreateWebhookEndpoint, type WebhookEndpoint } from './webhook-endpoint-form.tsx';

export default function Webhooks() {
  return (
    <Routes>
      <Route index element={<List />} />
      <Route path="deliveries/:id" element={<DeliveryDetails />} />
      <Route path=":id" element={<WebhookEndpointDetails />} />
    </Routes>
  );
}

function List() {
  const mayCall = useMayCall();
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const endpoints = useQuery({
    queryKey: ['webhookEndpoints', 'list', input],
    queryFn: () => countersign.webhookEndpoints.list.query(input),
  });
  const data = endpoints.data?.data ?? [];
  return (
    <Stack>
      <Group>
        {mayCall('webhookEndpoints.create') && (
          <SecretButton label="Create endpoint" title="Create webhook endpoint" shownAs="The signing secret">
            {(done, close) => <CreateWebhookEndpoint onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={endpoints.error} onRetry={endpoints.refetch} />
      {endpoints.data && data.length === 0 && (
        <Empty title="No webhook endpoints yet">
          Create one, and every event after that is sent to it, signed.
        </Empty>
      )}
      {data.length > 0 && (
        <Table.ScrollContainer minWidth={640}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>URL</Table.Th>
                <Table.Th>State</Table.Th>
                <Table.Th>Events</Table.Th>
                <Table.Th>Last success</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((endpoint) => (
                <Table.Tr key={endpoint.id}>
                  <Table.Td>
                    <Anchor
                      component={Link}
                      to={`/webhooks/${endpoint.id}`}
                      size="sm"
                      style={{ overflowWrap: 'anywhere' }}
                    >
                      {endpoint.url}
                    </Anchor>
                    {endpoint.description && (
                      <Text size="xs" c="dimmed">
                        {endpoint.description}
                      </Text>
                    )}
                  </Table.Td>
                  <Table.Td>
                    <EndpointState endpoint={endpoint} />
                  </Table.Td>
                  <Table.Td>{endpoint.eventTypes.join(', ') || 'all'}</Table.Td>
                  <Table.Td>
                    <Time at={endpoint.lastSuccessAt} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <Pages paging={paging} nextCursor={endpoints.data?.nextCursor ?? null} />
    </Stack>
  );
}

const DISABLED = {
  operator: 'by somebody',
  gone: 'it answered 410',
  failing: 'it failed for five days',
} as const;

export function EndpointState({ endpoint }: { endpoint: WebhookEndpoint }) {
  const { enabled, disabledReason, failingSince } = endpoint;
  return (
    <Stack gap={2} align="flex-start">
      <Badge variant="default">
        {enabled ? (failingSince === null ? 'enabled' : 'failing') : 'disabled'}
      </Badge>
      {disabledReason && <Text size="xs">{DISABLED[disabledReason]}</Text>}
    </Stack>
  );
}
