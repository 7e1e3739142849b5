/** OAuth applications: programs of others that are given access tokens, and what they may ask for. */
import { Anchor, Group, NativeSelect, Stack, Table, Tabs, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, Route, Routes, useNavigate } from 'react-router';
import { countersign, type Inputs } from './countersign.ts';
import { SecretButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { OauthApplicationDetails } from './oauth-application-details.tsx';
import { CreateOauthApplication } from './oauth-application-form.tsx';
import { type OauthApplication, OauthApplicationState, SOURCES } from './oauth-application-state.tsx';
import { OauthScopes } from './oauth-scopes.tsx';
import { OauthSettings } from './oauth-settings.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

export default function OauthApplications() {
  return (
    <Routes>
      <Route index element={<Overview tab="list" />} />
      <Route path="scopes" element={<Overview tab="scopes" />} />
      <Route path="settings" element={<Overview tab="settings" />} />
      <Route path=":id" element={<OauthApplicationDetails />} />
    </Routes>
  );
}

function Overview({ tab }: { tab: 'list' | 'scopes' | 'settings' }) {
  const navigate = useNavigate();
  return (
    <Tabs
      value={tab}
      onChange={(chosen) =>
        navigate(chosen === 'list' ? '/oauth-applications' : `/oauth-applications/${chosen}`)
      }
      keepMounted={false}
    >
      <Tabs.List mb="md">
        <Tabs.Tab value="list">Applications</Tabs.Tab>
        <Tabs.Tab value="scopes">Scopes</Tabs.Tab>
        <Tabs.Tab value="settings">Settings</Tabs.Tab>
      </Tabs.List>
      <Tabs.Panel value="list">
        <List />
      </Tabs.Panel>
      <Tabs.Panel value="scopes">
        <OauthScopes />
      </Tabs.Panel>
      <Tabs.Panel value="settings">
        <OauthSettings />
      </Tabs.Panel>
    </Tabs>
  );
}

type Order = Required<Pick<Inputs['oauthApplications']['list'], 'orderBy' | 'direction'>>;

const ORDERS: Record<string, Order> = {
  Newest: { orderBy: 'created_at', direction: 'descending' },
  Oldest: { orderBy: 'created_at', direction: 'ascending' },
  Name: { orderBy: 'name', direction: 'ascending' },
};

function List() {
  const mayCall = useMayCall();
  const [typed, setTyped] = useState('');
  const [query] = useDebouncedValue(typed.trim(), 200);
  const [order, setOrder] = useState('Newest');
  const paging = usePaging(`${order} ${query}`);
  const input = {
    ...ORDERS[order],
    ...(query && { query }),
    ...(paging.cursor && { cursor: paging.cursor }),
  };
  const applications = useQuery({
    queryKey: ['oauthApplications', 'list', input],
    queryFn: () => countersign.oauthApplications.list.query(input),
    placeholderData: keepPreviousData,
  });
  const data = applications.data?.data ?? [];
  return (
    <Stack>
      <Group align="flex-end">
        <TextInput
          label="Search"
          placeholder="Part of a name, or an id"
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          type="search"
          flex={1}
          miw={180}
        />
        <NativeSelect
          label="Order"
          value={order}
          onChange={(event) => setOrder(event.currentTarget.value)}
          data={Object.keys(ORDERS)}
        />
        {mayCall('oauthApplications.create') && (
          <SecretButton
            label="Create application"
            title="Create application"
            shownAs="The client secret of the new application"
          >
            {(done, close) => <CreateOauthApplication onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={applications.error} onRetry={applications.refetch} />
      {applications.data && data.length === 0 && applications.data.nextCursor === null && (
        <Nothing isSearched={query !== ''} />
      )}
      {data.length > 0 && <OauthApplicationTable applications={data} />}
      <Pages
        paging={paging}
        nextCursor={applications.data?.nextCursor ?? null}
        isLoading={applications.isPlaceholderData}
        isEmpty={applications.data?.data.length === 0}
      />
    </Stack>
  );
}

function Nothing({ isSearched }: { isSearched: boolean }) {
  return isSearched ? (
    <Empty title="No application is called so">Try a shorter part of its name.</Empty>
  ) : (
    <Empty title="No applications yet">
      Create one for each program that is to act for your users, or let those that agents bring along register
      themselves: that is among the settings.
    </Empty>
  );
}

function OauthApplicationTable({ applications }: { applications: readonly OauthApplication[] }) {
  return (
    <Table.ScrollContainer minWidth={720}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th>From</Table.Th>
            <Table.Th>Last used</Table.Th>
            <Table.Th>Created</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {applications.map((application) => (
            <Table.Tr key={application.id}>
              <Table.Td>
                <Anchor component={Link} to={`/oauth-applications/${application.id}`} size="sm">
                  {application.name}
                </Anchor>
                {application.description && (
                  <Text size="xs" c="dimmed">
                    {application.description}
                  </Text>
                )}
              </Table.Td>
              <Table.Td>
                <OauthApplicationState application={application} />
              </Table.Td>
              <Table.Td>{SOURCES[application.source]}</Table.Td>
              <Table.Td>
                <Time at={application.lastUsedAt} />
              </Table.Td>
              <Table.Td>
                <Time at={application.createdAt} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
