/** Where end users are signed in, and signing them out. */
import { Anchor, Code, Group, Stack, Table } from '@mantine/core';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { WideTable } from './wide-table.tsx';

type UserSession = Outputs['userSessions']['list']['data'][number];

const NOUN = 'userSessions';

/** Of one user, or of all. */
export function UserSessions({ subject }: { subject?: string }) {
  const mayEndAll = useMayCall()('userSessions.endAll');
  const paging = usePaging(subject ?? 'all');
  const input = { ...(subject && { subject }), ...(paging.cursor && { cursor: paging.cursor }) };
  const sessions = useQuery({
    queryKey: [NOUN, 'list', input],
    queryFn: () => countersign.userSessions.list.query(input),
    placeholderData: keepPreviousData,
  });
  const { data = [], nextCursor = null } = sessions.data ?? {};
  return (
    <Stack>
      <Failure error={sessions.error} onRetry={sessions.refetch} />
      {sessions.data && data.length === 0 && <Empty title="Nobody is signed in" />}
      {subject !== undefined && mayEndAll && data.length > 0 && (
        <Group>
          <ConfirmButton
            noun={NOUN}
            label="Sign out everywhere"
            title="Sign out everywhere"
            name={subject}
            act={() => countersign.userSessions.endAll.mutate({ subject })}
          >
            They are signed out of every browser. What they allowed applications goes on.
          </ConfirmButton>
        </Group>
      )}
      {data.length > 0 && <SessionTable sessions={data} showsSubject={subject === undefined} />}
      <Pages paging={paging} nextCursor={nextCursor} isLoading={sessions.isPlaceholderData} />
    </Stack>
  );
}

function SessionTable({
  sessions,
  showsSubject,
}: {
  sessions: readonly UserSession[];
  showsSubject: boolean;
}) {
  return (
    <WideTable minWidth={640}>
      <Table.Thead>
        <Table.Tr>
          {showsSubject && <Table.Th>User</Table.Th>}
          <Table.Th>Session</Table.Th>
          <Table.Th>Signed in by</Table.Th>
          <Table.Th>Since</Table.Th>
          <Table.Th>Last seen</Table.Th>
          <Table.Th>Expires</Table.Th>
          <Table.Th>End</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {sessions.map((session) => (
          <Row key={session.id} session={session} showsSubject={showsSubject} />
        ))}
      </Table.Tbody>
    </WideTable>
  );
}

function Row({ session, showsSubject }: { session: UserSession; showsSubject: boolean }) {
  const mayEnd = useMayCall()('userSessions.end');
  const { id, subject, source, createdAt, lastSeenAt, expiresAt } = session;
  return (
    <Table.Tr>
      {showsSubject && (
        <Table.Td style={{ overflowWrap: 'anywhere' }}>
          {/* Of a hand-off there is no user here, and what they allowed is what there is to see. */}
          <Anchor
            component={Link}
            to={
              source === 'handoff'
                ? `/oauth-grants?subject=${encodeURIComponent(subject)}`
                : `/users/${subject}`
            }
            size="sm"
          >
            {subject}
          </Anchor>
        </Table.Td>
      )}
      <Table.Td>
        <Code>{id}</Code>
      </Table.Td>
      <Table.Td style={{ overflowWrap: 'anywhere' }}>{source}</Table.Td>
      <Table.Td>
        <Time at={createdAt} />
      </Table.Td>
      <Table.Td>
        <Time at={lastSeenAt} />
      </Table.Td>
      <Table.Td>
        <Time at={expiresAt} />
      </Table.Td>
      <Table.Td>
        {mayEnd && (
          <ConfirmButton
            noun={NOUN}
            label="End"
            of={id}
            title="End session"
            name={subject}
            act={() => countersign.userSessions.end.mutate({ id })}
          >
            They are signed out of that browser. What they allowed applications goes on.
          </ConfirmButton>
        )}
      </Table.Td>
    </Table.Tr>
  );
}
