/** Who is signed in to the console, and signing them out. */
import { Badge, Code, Stack, Table } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { countersign, type Outputs, type Session } from './countersign.ts';
import { ConfirmButton } from './dialog-buttons.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { SESSION } from './session.tsx';
import { Time } from './time.tsx';

type OperatorSession = Outputs['operatorSessions']['list']['data'][number];

export default function OperatorSessions() {
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const sessions = useQuery({
    queryKey: ['operatorSessions', 'list', input],
    queryFn: () => countersign.operatorSessions.list.query(input),
  });
  return (
    <Stack>
      <Failure error={sessions.error} onRetry={sessions.refetch} />
      <Table.ScrollContainer minWidth={720}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Secret key</Table.Th>
              <Table.Th>Role</Table.Th>
              <Table.Th>Session</Table.Th>
              <Table.Th>Signed in</Table.Th>
              <Table.Th>Last seen</Table.Th>
              <Table.Th>Expires</Table.Th>
              <Table.Th>End</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {sessions.data?.data.map((session) => (
              <Row key={session.id} session={session} />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Pages paging={paging} nextCursor={sessions.data?.nextCursor ?? null} />
    </Stack>
  );
}

function Row({ session }: { session: OperatorSession }) {
  const mayEnd = useMayCall()('operatorSessions.end');
  const own = useQueryClient().getQueryData<Session>(SESSION);
  const { id, name, role, createdAt, lastSeenAt, expiresAt } = session;
  const isOwn = own?.id === id;
  return (
    <Table.Tr>
      <Table.Td>
        {name} {isOwn && <Badge variant="default">this one</Badge>}
      </Table.Td>
      <Table.Td>{role}</Table.Td>
      <Table.Td>
        <Code>{id}</Code>
      </Table.Td>
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
            noun="operatorSessions"
            label="End"
            of={id}
            title="End session"
            name={name}
            act={() => countersign.operatorSessions.end.mutate({ id })}
          >
            {isOwn && 'This is the one you are using, and you will be signed out. '}
            Whoever uses it is signed out at once. With the secret key they may sign in again: revoke that
            where they must not.
          </ConfirmButton>
        )}
      </Table.Td>
    </Table.Tr>
  );
}
