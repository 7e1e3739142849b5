/** Events: all that was changed, as it happens and by search. */
import {
  Anchor,
  Button,
  Code,
  Group,
  Modal,
  NativeSelect,
  Stack,
  Switch,
  Table,
  TextInput,
} from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useSearchParams } from 'react-router';
import { EVENT_TYPES, type EventType } from '../../server/domain/event-types.ts';
import { countersign, type Outputs } from './countersign.ts';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { Time } from './time.tsx';

type LoggedEvent = Outputs['events']['list']['data'][number];

const TYPES = Object.keys(EVENT_TYPES) as EventType[];
const PAGE = 50;
const TAIL_MS = 1_000;

/** What a filter may be; empty for any. */
interface Filter {
  type: string;
  actorId: string;
  objectId: string;
  subject: string;
  since: string;
  until: string;
}

const ALL: Filter = { type: '', actorId: '', objectId: '', subject: '', since: '', until: '' };

function inputOf({ type, since, until, ...exact }: Filter) {
  const known = TYPES.find((each) => each === type);
  const given = Object.entries(exact).filter(([, value]) => value.trim() !== '');
  return {
    ...(known && { type: known }),
    ...Object.fromEntries(given.map(([name, value]) => [name, value.trim()])),
    ...(since && { since: new Date(since).getTime() }),
    ...(until && { until: new Date(until).getTime() }),
  };
}

export default function Events() {
  const [params] = useSearchParams();
  const linked = Number(params.get('before'));
  const [typed, setTyped] = useState(ALL);
  const [filter] = useDebouncedValue(typed, 300);
  const [befores, setBefores] = useState<readonly number[]>(linked > 0 ? [linked] : []);
  const [isLive, setIsLive] = useState(linked <= 0);
  const [shown, setShown] = useState<LoggedEvent | null>(null);
  const before = befores.at(-1);
  // Only the first page has what happens next.
  const follows = isLive && before === undefined;
  const input = { ...inputOf(filter), newestFirst: true, limit: PAGE, ...(before && { before }) };
  const events = useQuery({
    queryKey: ['events', input],
    queryFn: () => countersign.events.list.query(input),
    placeholderData: keepPreviousData,
    refetchInterval: follows ? TAIL_MS : false,
  });
  const { data = [], nextBefore = null } = events.data ?? {};
  return (
    <Stack>
      <Filters
        value={typed}
        onChange={(changed) => {
          setTyped(changed);
          setBefores([]);
        }}
      />
      <Switch
        label="Follow what happens"
        checked={follows}
        disabled={before !== undefined}
        onChange={(event) => setIsLive(event.currentTarget.checked)}
      />
      <Failure error={events.error} onRetry={events.refetch} />
      {events.data && data.length === 0 && (
        <Empty title="No events">
          {nextBefore === null
            ? 'Nothing like this has happened.'
            : 'None on this page: go on to older ones.'}
        </Empty>
      )}
      {data.length > 0 && <EventTable events={data} onShow={setShown} />}
      <Group component="nav" aria-label="Pages" gap="xs">
        <Button
          size="xs"
          variant="default"
          onClick={() => setBefores(befores.slice(0, -1))}
          disabled={befores.length === 0}
        >
          Newer
        </Button>
        <Button
          size="xs"
          variant="default"
          onClick={() => nextBefore !== null && setBefores([...befores, nextBefore])}
          disabled={nextBefore === null}
        >
          Older
        </Button>
      </Group>
      <Modal opened={shown !== null} onClose={() => setShown(null)} title={shown?.type} size="lg">
        <Code block tabIndex={0}>
          {JSON.stringify(shown, null, 2)}
        </Code>
      </Modal>
    </Stack>
  );
}

function Filters({ value, onChange }: { value: Filter; onChange: (filter: Filter) => void }) {
  const input = (name: keyof Filter) => ({
    value: value[name],
    onChange: ({ currentTarget }: { currentTarget: { value: string } }) =>
      onChange({ ...value, [name]: currentTarget.value }),
  });
  return (
    <Group align="flex-end">
      <NativeSelect label="Type" {...input('type')} data={[{ value: '', label: 'Any' }, ...TYPES]} />
      <TextInput label="Subject" placeholder="user_42" {...input('subject')} />
      <TextInput label="Of" placeholder="ak_…, mch_…" {...input('objectId')} />
      <TextInput label="By" placeholder="sk_…" {...input('actorId')} />
      <TextInput label="From" type="datetime-local" {...input('since')} />
      <TextInput label="Until" type="datetime-local" {...input('until')} />
    </Group>
  );
}

function EventTable({
  events,
  onShow,
}: {
  events: readonly LoggedEvent[];
  onShow: (event: LoggedEvent) => void;
}) {
  return (
    <Table.ScrollContainer minWidth={720}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Event</Table.Th>
            <Table.Th>Of</Table.Th>
            <Table.Th>Subject</Table.Th>
            <Table.Th>By</Table.Th>
            <Table.Th>When</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {events.map((event) => (
            <Table.Tr key={event.seq}>
              <Table.Td>
                <Anchor component="button" type="button" size="sm" onClick={() => onShow(event)}>
                  {event.type}
                </Anchor>
              </Table.Td>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>
                <ObjectLink id={event.objectId} />
              </Table.Td>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>{event.subject ?? '–'}</Table.Td>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>{event.actor.id}</Table.Td>
              <Table.Td>
                <Time at={event.at} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

/** Where the page of a thing is, by the prefix of its id. */
const PAGES: Record<string, string> = { ak_: '/api-keys/', mch_: '/machines/', ep_: '/webhooks/' };

function ObjectLink({ id }: { id: string }) {
  const page = PAGES[id.slice(0, id.indexOf('_') + 1)];
  if (page === undefined) return id;
  return (
    <Anchor component={Link} to={`${page}${id}`} size="sm">
      {id}
    </Anchor>
  );
}
