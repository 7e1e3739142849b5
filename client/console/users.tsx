/** Users: who signs in where an application asks to act for them, by accounts of this server or at another issuer. */
import { Anchor, Group, Stack, Table, Tabs, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, Route, Routes, useNavigate } from 'react-router';
import { countersign } from './countersign.ts';
import { SecretButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { UserDetails } from './user-details.tsx';
import { InviteUser, UserInvitations } from './user-invitations.tsx';
import { UserSessions } from './user-sessions.tsx';
import { nameOf, type User, UserState } from './user-state.tsx';

export default function Users() {
  return (
    <Routes>
      <Route index element={<Overview tab="list" />} />
      <Route path="invitations" element={<Overview tab="invitations" />} />
      <Route path="sessions" element={<Overview tab="sessions" />} />
      <Route path=":id" element={<UserDetails />} />
    </Routes>
  );
}

function Overview({ tab }: { tab: 'list' | 'invitations' | 'sessions' }) {
  const navigate = useNavigate();
  return (
    <Tabs
      value={tab}
      onChange={(chosen) => navigate(chosen === 'list' ? '/users' : `/users/${chosen}`)}
      keepMounted={false}
    >
      <Tabs.List mb="md">
        <Tabs.Tab value="list">Users</Tabs.Tab>
        <Tabs.Tab value="invitations">Invitations</Tabs.Tab>
        <Tabs.Tab value="sessions">Signed in</Tabs.Tab>
      </Tabs.List>
      <Tabs.Panel value="list">
        <List />
      </Tabs.Panel>
      <Tabs.Panel value="invitations">
        <UserInvitations />
      </Tabs.Panel>
      <Tabs.Panel value="sessions">
        <UserSessions />
      </Tabs.Panel>
    </Tabs>
  );
}

function List() {
  const mayCall = useMayCall();
  const [typed, setTyped] = useState('');
  const [signInName] = useDebouncedValue(typed.trim(), 200);
  const paging = usePaging(signInName);
  const input = { ...(signInName && { signInName }), ...(paging.cursor && { cursor: paging.cursor }) };
  const users = useQuery({
    queryKey: ['users', 'list', input],
    queryFn: () => countersign.users.list.query(input),
    placeholderData: keepPreviousData,
  });
  const data = users.data?.data ?? [];
  return (
    <Stack>
      <Group align="flex-end">
        <TextInput
          label="Signs in as"
          placeholder="The whole name"
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          type="search"
          maxLength={128}
          flex={1}
          miw={180}
        />
        {mayCall('users.invite') && (
          <SecretButton label="Invite" title="Invite a user" shownAs="The invitation">
            {(done, close) => <InviteUser onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={users.error} onRetry={users.refetch} />
      {users.data && data.length === 0 && <Nothing isSearched={signInName !== ''} />}
      {data.length > 0 && <UserTable users={data} />}
      <Pages
        paging={paging}
        nextCursor={users.data?.nextCursor ?? null}
        isLoading={users.isPlaceholderData}
      />
    </Stack>
  );
}

function Nothing({ isSearched }: { isSearched: boolean }) {
  return isSearched ? (
    <Empty title="Nobody signs in so">It is looked for as a whole, in any case.</Empty>
  ) : (
    <Empty title="No users yet">
      Invite one, who then chooses a name and a password. Whom an application of yours signs in by a hand-off
      is that application’s user, and not here.
    </Empty>
  );
}

function UserTable({ users }: { users: readonly User[] }) {
  return (
    <Table.ScrollContainer minWidth={640}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>Signs in at</Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th>Signed in</Table.Th>
            <Table.Th>Created</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {users.map((user) => (
            <Table.Tr key={user.id}>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>
                <Anchor component={Link} to={`/users/${user.id}`} size="sm">
                  {nameOf(user)}
                </Anchor>
                {user.name && user.name !== nameOf(user) && (
                  <Text size="xs" c="dimmed">
                    {user.name}
                  </Text>
                )}
              </Table.Td>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>{user.source}</Table.Td>
              <Table.Td>
                <UserState user={user} />
              </Table.Td>
              <Table.Td>
                <Time at={user.lastSignedInAt} />
              </Table.Td>
              <Table.Td>
                <Time at={user.createdAt} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
