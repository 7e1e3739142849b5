/** API keys: customers' scripts act by them, each for a subject. */
import { Anchor, Code, Group, NativeSelect, Stack, Table, Tabs, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useEffect, useState } from 'react';
import { Link, Route, Routes, useNavigate, useSearchParams } from 'react-router';
import { ApiKeyDetails } from './api-key-details.tsx';
import { CreateApiKey } from './api-key-form.tsx';
import { type ApiKey, ApiKeyState } from './api-key-state.tsx';
import { countersign } from './countersign.ts';
import { ConfirmButton, SecretButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { KeyPolicies } from './key-policies.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

const ApiKeyImport = lazy(() => import('./api-key-import.tsx'));

export default function ApiKeys() {
  return (
    <Routes>
      <Route index element={<Overview tab="list" />} />
      <Route path="policies" element={<Overview tab="policies" />} />
      <Route path="import" element={<Overview tab="import" />} />
      <Route path=":id" element={<ApiKeyDetails />} />
    </Routes>
  );
}

function Overview({ tab }: { tab: 'list' | 'policies' | 'import' }) {
  const navigate = useNavigate();
  const mayImport = useMayCall()('apiKeys.import');
  return (
    <Tabs
      value={tab}
      onChange={(chosen) => navigate(chosen === 'list' ? '/api-keys' : `/api-keys/${chosen}`)}
      keepMounted={false}
    >
      <Tabs.List mb="md">
        <Tabs.Tab value="list">API keys</Tabs.Tab>
        <Tabs.Tab value="policies">Policies</Tabs.Tab>
        {mayImport && <Tabs.Tab value="import">Import</Tabs.Tab>}
      </Tabs.List>
      <Tabs.Panel value="list">
        <List />
      </Tabs.Panel>
      <Tabs.Panel value="policies">
        <KeyPolicies />
      </Tabs.Panel>
      <Tabs.Panel value="import">
        <Suspense>
          <ApiKeyImport />
        </Suspense>
      </Tabs.Panel>
    </Tabs>
  );
}

const STATES = ['live', 'disabled', 'expired', 'revoked'] as const;

/** What is typed: the beginning of a value, or a part of a name. */
function searchOf(typed: string): { start: string } | { query: string } | Record<never, never> {
  if (typed === '') return {};
  return /^[a-z0-9_]*_[0-9A-Za-z]{3,}$/.test(typed) ? { start: typed.slice(0, 64) } : { query: typed };
}

function List() {
  const mayCall = useMayCall();
  const [params, setParams] = useSearchParams();
  const [typed, setTyped] = useState('');
  const [typedSubject, setTypedSubject] = useState(params.get('subject') ?? '');
  const [state, setState] = useState(STATES.find((each) => each === params.get('state')));
  const [search] = useDebouncedValue(typed.trim(), 200);
  const [subject] = useDebouncedValue(typedSubject.trim(), 200);
  // In the address, so that a link leads to the keys of a subject. It follows what is typed, later than it is.
  useEffect(() => {
    setParams({ ...(subject && { subject }), ...(state && { state }) }, { replace: true });
  }, [subject, state, setParams]);
  const paging = usePaging(`${search} ${subject} ${state}`);
  const input = {
    ...searchOf(search),
    ...(subject && { subject }),
    ...(state && { state }),
    ...(paging.cursor && { cursor: paging.cursor }),
  };
  const keys = useQuery({
    queryKey: ['apiKeys', 'list', input],
    queryFn: () => countersign.apiKeys.list.query(input),
    placeholderData: keepPreviousData,
  });
  const data = keys.data?.data ?? [];
  return (
    <Stack>
      <Group align="flex-end">
        <TextInput
          label="Search"
          placeholder="Part of a name, or how a value begins"
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          type="search"
          flex={1}
          miw={180}
        />
        <TextInput
          label="Subject"
          placeholder="user_42"
          value={typedSubject}
          onChange={(event) => setTypedSubject(event.currentTarget.value)}
          autoComplete="off"
        />
        <NativeSelect
          label="State"
          value={state ?? ''}
          onChange={({ currentTarget }) => setState(STATES.find((each) => each === currentTarget.value))}
          data={[{ value: '', label: 'Any' }, ...STATES]}
        />
        {mayCall('apiKeys.create') && (
          <SecretButton label="Create API key" title="Create API key" shownAs="The value of the new API key">
            {(done, close) => <CreateApiKey subject={subject} onDone={done} onCancel={close} />}
          </SecretButton>
        )}
        {mayCall('apiKeys.revokeAll') && subject !== '' && (
          <ConfirmButton
            noun="apiKeys"
            size="sm"
            label="Revoke all of them"
            title="Revoke all"
            name={subject}
            act={() => countersign.apiKeys.revokeAll.mutate({ subject })}
          >
            Every API key of this subject is refused from then on, whatever its state. This cannot be undone.
          </ConfirmButton>
        )}
      </Group>
      <Failure error={keys.error} onRetry={keys.refetch} />
      {keys.data && data.length === 0 && keys.data.nextCursor === null && (
        <Nothing isFiltered={Object.keys(input).length > 0} />
      )}
      {data.length > 0 && <ApiKeyTable keys={data} />}
      <Pages
        paging={paging}
        nextCursor={keys.data?.nextCursor ?? null}
        isLoading={keys.isPlaceholderData}
        isEmpty={keys.data?.data.length === 0}
      />
    </Stack>
  );
}

function Nothing({ isFiltered }: { isFiltered: boolean }) {
  return isFiltered ? (
    <Empty title="No API key is like this">Try a shorter part of its name, or any state.</Empty>
  ) : (
    <Empty title="No API keys yet">
      Create one for a subject, import those that you have, or let your users create their own in a panel.
    </Empty>
  );
}

function ApiKeyTable({ keys }: { keys: readonly ApiKey[] }) {
  return (
    <Table.ScrollContainer minWidth={760}>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>Subject</Table.Th>
            <Table.Th>Begins</Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th>Expires</Table.Th>
            <Table.Th>Last used</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {keys.map((key) => (
            <Table.Tr key={key.id}>
              <Table.Td>
                <Anchor component={Link} to={`/api-keys/${key.id}`} size="sm">
                  {key.name}
                </Anchor>
                {key.description && (
                  <Text size="xs" c="dimmed">
                    {key.description}
                  </Text>
                )}
              </Table.Td>
              <Table.Td style={{ overflowWrap: 'anywhere' }}>{key.subject}</Table.Td>
              <Table.Td>
                <Code>{key.start}</Code>
              </Table.Td>
              <Table.Td>
                <ApiKeyState apiKey={key} />
              </Table.Td>
              <Table.Td>
                <Time at={key.expiresAt} />
              </Table.Td>
              <Table.Td>
                <Time at={key.lastUsedAt} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
