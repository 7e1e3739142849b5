/** Machines: the services that call each other, each with a secret of its own. */
import { Anchor, Group, NativeSelect, Stack, Table, Tabs, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState } from 'react';
import { Link, Route, Routes, useNavigate } from 'react-router';
import { countersign, type Inputs } from './countersign.ts';
import { SecretButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { MachineDetails } from './machine-details.tsx';
import { CreateMachine } from './machine-form.tsx';
import { AllMachineScopes } from './machine-scopes.tsx';
import { type Machine, MachineState } from './machine-state.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

const MachineGraph = lazy(() => import('./machine-graph.tsx'));

export default function Machines() {
  return (
    <Routes>
      <Route index element={<Overview tab="list" />} />
      <Route path="graph" element={<Overview tab="graph" />} />
      <Route path="scopes" element={<Overview tab="scopes" />} />
      <Route path=":id" element={<MachineDetails />} />
    </Routes>
  );
}

function Overview({ tab }: { tab: 'list' | 'graph' | 'scopes' }) {
  const navigate = useNavigate();
  return (
    <Tabs
      value={tab}
      onChange={(chosen) => navigate(chosen === 'list' ? '/machines' : `/machines/${chosen}`)}
      keepMounted={false}
    >
      <Tabs.List mb="md">
        <Tabs.Tab value="list">Machines</Tabs.Tab>
        <Tabs.Tab value="graph">Graph</Tabs.Tab>
        <Tabs.Tab value="scopes">Who may call whom</Tabs.Tab>
      </Tabs.List>
      <Tabs.Panel value="list">
        <List />
      </Tabs.Panel>
      <Tabs.Panel value="graph">
        <Suspense>
          <MachineGraph />
        </Suspense>
      </Tabs.Panel>
      <Tabs.Panel value="scopes">
        <AllMachineScopes />
      </Tabs.Panel>
    </Tabs>
  );
}

type Order = Required<Pick<Inputs['machines']['list'], 'orderBy' | 'direction'>>;

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
  const machines = useQuery({
    queryKey: ['machines', 'list', input],
    queryFn: () => countersign.machines.list.query(input),
    placeholderData: keepPreviousData,
  });
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
        {mayCall('machines.create') && (
          <SecretButton label="Create machine" title="Create machine" shownAs="The secret of the new machine">
            {(done, close) => <CreateMachine onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={machines.error} onRetry={machines.refetch} />
      {machines.data?.data.length === 0 && <Nothing isSearched={query !== ''} />}
      {machines.data && machines.data.data.length > 0 && <MachineTable machines={machines.data.data} />}
      <Pages
        paging={paging}
        nextCursor={machines.data?.nextCursor ?? null}
        isLoading={machines.isPlaceholderData}
      />
    </Stack>
  );
}

function Nothing({ isSearched }: { isSearched: boolean }) {
  return isSearched ? (
    <Empty title="No machine is called so">Try a shorter part of its name.</Empty>
  ) : (
    <Empty title="No machines yet">
      Create one for each service. Then grant one to call another, and it can ask for tokens.
    </Empty>
  );
}

function MachineTable({ machines }: { machines: readonly Machine[] }) {
  return (
    <Table.ScrollContainer minWidth={640}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th>Rotate by</Table.Th>
            <Table.Th>Last used</Table.Th>
            <Table.Th>Created</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {machines.map((machine) => (
            <Table.Tr key={machine.id}>
              <Table.Td>
                <Anchor component={Link} to={`/machines/${machine.id}`} size="sm">
                  {machine.name}
                </Anchor>
                {machine.description && (
                  <Text size="xs" c="dimmed">
                    {machine.description}
                  </Text>
                )}
              </Table.Td>
              <Table.Td>
                <MachineState machine={machine} />
              </Table.Td>
              <Table.Td>
                <Time at={machine.rotateBy} never="–" />
              </Table.Td>
              <Table.Td>
                <Time at={machine.lastUsedAt} />
              </Table.Td>
              <Table.Td>
                <Time at={machine.createdAt} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
