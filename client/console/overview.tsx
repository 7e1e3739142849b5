/** What an operator looks at first: it looks again by itself, as long as somebody looks at it. */
import { Alert, Anchor, Group, Paper, SimpleGrid, Stack, Text, Title, VisuallyHidden } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { Bars } from './bars.tsx';
import { countersign, type Outputs } from './countersign.ts';
import { sayDuration } from './duration.tsx';
import { Failure } from './failure.tsx';
import { Time } from './time.tsx';

type Seen = Outputs['overview']['get'];

const AGAIN_MS = 5_000;

export default function Overview() {
  const overview = useQuery({
    queryKey: ['overview'],
    queryFn: () => countersign.overview.get.query(),
    refetchInterval: AGAIN_MS,
  });
  return (
    <Stack>
      <Failure error={overview.error} onRetry={overview.refetch} />
      {overview.data && <Content seen={overview.data} />}
    </Stack>
  );
}

function Content({ seen }: { seen: Seen }) {
  return (
    <Stack>
      <Troubles seen={seen} />
      <Card title="Verifications in the last hour, by this server">
        <Verifications minutes={seen.verifications} />
      </Card>
      <SimpleGrid cols={{ base: 1, sm: 2, lg: 4 }}>
        <Card title="API keys" to="/api-keys">
          <States counted={seen.credentials.apiKeys} />
        </Card>
        <Card title="Machines" to="/machines">
          <States counted={seen.credentials.machines} />
        </Card>
        <Card title="Secret keys" to="/secret-keys">
          <States counted={seen.credentials.secretKeys} />
        </Card>
        <Card title="M2M tokens">
          <Text size="sm">{seen.credentials.unexpiredM2mTokens.toLocaleString()} unexpired</Text>
        </Card>
      </SimpleGrid>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Card title="Expires this week">
          <Expiring keys={seen.expiring} />
        </Card>
        <Card title="Behind the scenes">
          <Stack gap={4}>
            <Text size="sm">
              The signing key rotates{' '}
              {seen.signing ? <Time at={seen.signing.rotatesAt} /> : 'when there is one'}
            </Text>
            <Text size="sm">
              {seen.pending.due.toLocaleString()} webhooks due, {seen.pending.waiting.toLocaleString()}{' '}
              waiting
            </Text>
            <Text size="sm">
              {seen.oldestPendingMs === 0
                ? 'No event waits to be delivered'
                : `The oldest event waits since ${sayDuration(Math.ceil(seen.oldestPendingMs / 1000))}`}
            </Text>
          </Stack>
        </Card>
      </SimpleGrid>
    </Stack>
  );
}

function Card({ title, to, children }: { title: string; to?: string; children: ReactNode }) {
  return (
    <Paper withBorder p="md" component="section" aria-label={title}>
      <Title order={2} size="h5" mb="xs">
        {to ? (
          <Anchor component={Link} to={to} inherit>
            {title}
          </Anchor>
        ) : (
          title
        )}
      </Title>
      {children}
    </Paper>
  );
}

/** What somebody should do something about. Renders nothing where there is none. */
function Troubles({ seen }: { seen: Seen }) {
  const troubles = [
    ...seen.failingEndpoints.map(({ id, url, enabled, failingSince }) => (
      <Text key={id} size="sm">
        Webhooks to{' '}
        <Anchor component={Link} to={`/webhooks/${id}`} inherit style={{ overflowWrap: 'anywhere' }}>
          {url}
        </Anchor>{' '}
        {enabled ? (
          <>
            fail since <Time at={failingSince} />
          </>
        ) : (
          'failed for so long that they were stopped'
        )}
      </Text>
    )),
    ...seen.troubledJobs.map(({ name, failures }) => (
      <Text key={name} size="sm">
        The job{' '}
        <Anchor component={Link} to="/jobs" inherit>
          {name}
        </Anchor>{' '}
        {failures > 0 ? 'fails' : 'is overdue: does a worker run?'}
      </Text>
    )),
    ...(seen.overdueSecrets > 0
      ? [
          <Text key="secrets" size="sm">
            {seen.overdueSecrets.toLocaleString()} secrets are overdue for rotation
          </Text>,
        ]
      : []),
  ];
  if (troubles.length === 0) return null;
  return (
    <Alert color="red" title="Needs somebody">
      <Stack gap={4}>{troubles}</Stack>
    </Alert>
  );
}

function States({
  counted: { states, isCapped },
}: {
  counted: { states: Record<string, number>; isCapped: boolean };
}) {
  return (
    <Stack gap={2}>
      {Object.entries(states).map(([state, count]) => (
        <Text key={state} size="sm">
          {count.toLocaleString()} {state}
        </Text>
      ))}
      {isCapped && (
        <Text size="xs" c="dimmed">
          of the newest 10,000
        </Text>
      )}
    </Stack>
  );
}

function Expiring({ keys }: { keys: Seen['expiring'] }) {
  if (keys.length === 0) return <Text size="sm">Nothing</Text>;
  return (
    <Stack gap={4}>
      {keys.map(({ kind, id, name, subject, expiresAt }) => (
        <Text key={id} size="sm">
          <Anchor component={Link} to={kind === 'api_key' ? `/api-keys/${id}` : '/secret-keys'} inherit>
            {name}
          </Anchor>
          {subject && `, of ${subject}`}, <Time at={expiresAt} />
        </Text>
      ))}
    </Stack>
  );
}

function Verifications({ minutes }: { minutes: Seen['verifications'] }) {
  const bars = minutes.map(({ at, outcomes }, place) => {
    const valid = outcomes['valid'] ?? 0;
    const all = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
    return { key: at, place, valid, refused: all - valid };
  });
  const highest = Math.max(0, ...bars.map(({ valid, refused }) => valid + refused));
  const totals = totalsOf(minutes);
  return (
    <Stack gap="xs">
      <Group gap="lg">
        {totals.length === 0 ? (
          <Text size="sm">None</Text>
        ) : (
          totals.map(([outcome, count]) => (
            <Text key={outcome} size="sm">
              {count.toLocaleString()} {outcome.replaceAll('_', ' ')}
            </Text>
          ))
        )}
      </Group>
      <Bars places={minutes.length} bars={bars} />
      <VisuallyHidden>At most {highest.toLocaleString()} in a minute</VisuallyHidden>
    </Stack>
  );
}

/** Of each outcome, valid first and then the most frequent. */
function totalsOf(minutes: Seen['verifications']): [string, number][] {
  const totals = new Map<string, number>();
  for (const { outcomes } of minutes)
    for (const [outcome, count] of Object.entries(outcomes))
      totals.set(outcome, (totals.get(outcome) ?? 0) + count);
  return [...totals].sort(
    ([one, a], [other, b]) => Number(other === 'valid') - Number(one === 'valid') || b - a,
  );
}
