/** Scheduled jobs: when each is due, how it went, and having it run at once. */
import { Badge, Button, Code, Stack, Table, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { sayDuration } from './duration.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

type Job = Outputs['jobs']['list'][number];

const AGAIN_MS = 5_000;

export default function Jobs() {
  const jobs = useQuery({
    queryKey: ['jobs'],
    queryFn: () => countersign.jobs.list.query(),
    refetchInterval: AGAIN_MS,
  });
  return (
    <Stack>
      <Failure error={jobs.error} onRetry={jobs.refetch} />
      {jobs.data?.length === 0 && (
        <Empty title="No jobs yet">They are there once a worker has started.</Empty>
      )}
      {jobs.data && jobs.data.length > 0 && (
        <Table.ScrollContainer minWidth={760}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Job</Table.Th>
                <Table.Th>State</Table.Th>
                <Table.Th>Every</Table.Th>
                <Table.Th>Due</Table.Th>
                <Table.Th>Last success</Table.Th>
                <Table.Th>Run</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {jobs.data.map((job) => (
                <Row key={job.name} job={job} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

function Row({ job }: { job: Job }) {
  const mayRun = useMayCall()('jobs.run');
  const { name, description, running, failures, lastError, periodMs, nextAt, lastSucceededAt } = job;
  return (
    <Table.Tr>
      <Table.Td>
        {name}
        <Text size="xs" c="dimmed">
          {description}
        </Text>
      </Table.Td>
      <Table.Td>
        <Badge variant="default">{running ? 'running' : failures > 0 ? 'failing' : 'waiting'}</Badge>
        {failures > 0 && (
          <Text size="xs">
            {failures} times in a row: <Code>{lastError}</Code>
          </Text>
        )}
      </Table.Td>
      <Table.Td>{sayDuration(periodMs / 1000)}</Table.Td>
      <Table.Td>
        <Time at={nextAt} />
      </Table.Td>
      <Table.Td>
        <Time at={lastSucceededAt} />
      </Table.Td>
      <Table.Td>{mayRun && <RunNow name={name} />}</Table.Td>
    </Table.Tr>
  );
}

function RunNow({ name }: { name: Job['name'] }) {
  const running = useChange('jobs', () => countersign.jobs.run.mutate({ name }));
  return (
    <>
      <Button
        size="xs"
        variant="default"
        aria-label={`Run now: ${name}`}
        onClick={() => running.mutate(undefined)}
        loading={running.isPending}
      >
        Run now
      </Button>
      <Failure error={running.error} />
    </>
  );
}
