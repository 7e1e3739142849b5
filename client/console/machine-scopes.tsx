/** Machine scopes: which machine may call which, and what its tokens may be asked for with. */
import {
  Anchor,
  Badge,
  Button,
  Group,
  Select,
  Stack,
  Table,
  Text,
  Title,
  VisuallyHidden,
} from '@mantine/core';
import { useDebouncedValue, useDisclosure } from '@mantine/hooks';
import { keepPreviousData, useQueries, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { useChange } from './change.ts';
import { Confirm } from './confirm.tsx';
import { countersign, type Inputs, type Outputs } from './countersign.ts';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { DialogForm, FormDialog } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import type { Machine } from './machine-state.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';

export type MachineScope = Outputs['machineScopes']['list']['data'][number];

type Ends = Pick<MachineScope, 'fromMachineId' | 'toMachineId'>;

/** Of machines, and so read again when one of them changes. */
const NOUN = 'machines';

/** Whom a machine may call, and who may call it. */
export function MachineScopes({ machine }: { machine: Machine }) {
  const mayCall = useMayCall();
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={3} size="h4">
          May call
        </Title>
        {mayCall('machineScopes.create') && <Grant from={machine} />}
      </Group>
      <MachineScopeList
        filter={{ fromMachineId: machine.id }}
        shows={['to']}
        empty="It may call no other machine. Grant it one."
      />
      <Title order={3} size="h4">
        May be called by
      </Title>
      <MachineScopeList
        filter={{ toMachineId: machine.id }}
        shows={['from']}
        empty="No other machine may call it."
      />
    </Stack>
  );
}

/** All of them, which is what the graph shows. */
export function AllMachineScopes() {
  return (
    <MachineScopeList
      filter={{}}
      shows={['from', 'to']}
      empty="No machine may call another. Open one, and grant it whom it may call."
    />
  );
}

function MachineScopeList({
  filter,
  shows,
  empty,
}: {
  filter: Partial<Ends>;
  shows: readonly ('from' | 'to')[];
  empty: string;
}) {
  const paging = usePaging(JSON.stringify(filter));
  const input = { ...filter, ...(paging.cursor && { cursor: paging.cursor }) };
  const scopes = useQuery({
    queryKey: [NOUN, 'scopes', input],
    queryFn: () => countersign.machineScopes.list.query(input),
    placeholderData: keepPreviousData,
  });
  const edges = scopes.data?.data ?? [];
  const names = useMachineNames(
    edges.flatMap(({ fromMachineId, toMachineId }) => [fromMachineId, toMachineId]),
  );
  if (scopes.isError) return <Failure error={scopes.error} onRetry={scopes.refetch} />;
  if (!scopes.data) return null;
  if (edges.length === 0) return <Empty title={empty} />;
  return (
    <Stack>
      <Table.ScrollContainer minWidth={480}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              {shows.includes('from') && <Table.Th>From</Table.Th>}
              {shows.includes('to') && <Table.Th>To</Table.Th>}
              <Table.Th>Scopes</Table.Th>
              <Table.Th>
                <VisuallyHidden>Actions</VisuallyHidden>
              </Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {edges.map((edge) => (
              <Row
                key={`${edge.fromMachineId} ${edge.toMachineId}`}
                edge={edge}
                shows={shows}
                names={names}
              />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Pages paging={paging} nextCursor={scopes.data.nextCursor} isLoading={scopes.isPlaceholderData} />
    </Stack>
  );
}

function Row({
  edge,
  shows,
  names,
}: {
  edge: MachineScope;
  shows: readonly ('from' | 'to')[];
  names: ReadonlyMap<string, string>;
}) {
  const mayCall = useMayCall();
  const { fromMachineId, toMachineId, scopes } = edge;
  return (
    <Table.Tr>
      {shows.includes('from') && <MachineCell id={fromMachineId} names={names} />}
      {shows.includes('to') && <MachineCell id={toMachineId} names={names} />}
      <Table.Td>
        <Scopes scopes={scopes} none="none: tokens carry no scopes of yours" />
      </Table.Td>
      <Table.Td>
        <Group gap="xs" wrap="nowrap" justify="flex-end">
          {mayCall('machineScopes.update') && <Narrowing edge={edge} />}
          {mayCall('machineScopes.delete') && (
            <Revocation edge={edge} name={names.get(toMachineId) ?? toMachineId} />
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

function MachineCell({ id, names }: { id: string; names: ReadonlyMap<string, string> }) {
  return (
    <Table.Td>
      <Anchor component={Link} to={`/machines/${id}`} size="sm">
        {names.get(id) ?? id}
      </Anchor>
    </Table.Td>
  );
}

function Scopes({ scopes, none }: { scopes: readonly string[]; none: string }) {
  if (scopes.length === 0)
    return (
      <Text span size="xs" c="dimmed">
        {none}
      </Text>
    );
  return (
    <Group gap={4}>
      {scopes.map((scope) => (
        <Badge key={scope} variant="default" tt="none">
          {scope}
        </Badge>
      ))}
    </Group>
  );
}

const NAMES_STALE_MS = 60_000;

/** What machines are called; those of one page are asked for in one request. */
function useMachineNames(ids: readonly string[]): ReadonlyMap<string, string> {
  return useQueries({
    queries: [...new Set(ids)].map((id) => ({
      queryKey: [NOUN, 'one', id],
      queryFn: () => countersign.machines.get.query({ id }),
      staleTime: NAMES_STALE_MS,
    })),
    combine: (machines) =>
      new Map(machines.flatMap(({ data }) => (data ? [[data.id, data.name] as const] : []))),
  });
}

function Grant({ from }: { from: Machine }) {
  const [isOpen, { open, close }] = useDisclosure();
  return (
    <>
      <Button size="xs" onClick={open}>
        Grant
      </Button>
      <FormDialog title={`Whom may ${from.name} call?`} isOpen={isOpen} onClose={close}>
        <GrantForm from={from} onDone={close} />
      </FormDialog>
    </>
  );
}

function GrantForm({ from, onDone }: { from: Machine; onDone: () => void }) {
  const [to, setTo] = useState<string | null>(null);
  const [scopes, setScopes] = useState<string[]>([]);
  const granting = useChange(
    NOUN,
    (input: Inputs['machineScopes']['create']) => countersign.machineScopes.create.mutate(input),
    onDone,
  );
  return (
    <DialogForm
      action={granting}
      label="Grant"
      isReady={to !== null}
      onSubmit={() => to && granting.mutate({ fromMachineId: from.id, toMachineId: to, scopes })}
      onCancel={onDone}
    >
      <MachineSelect label="Machine" value={to} onChange={setTo} except={from.id} />
      <ScopesOfEdge value={scopes} onChange={setScopes} />
    </DialogForm>
  );
}

function ScopesOfEdge({ value, onChange }: { value: string[]; onChange: (scopes: string[]) => void }) {
  return (
    <ListInput
      label="Scopes"
      description="What a token may be asked for with, such as entries:write; none is fine too"
      value={value}
      onChange={onChange}
    />
  );
}

/** Looked for by name: there may be more machines than a list shows. */
function MachineSelect({
  label,
  value,
  onChange,
  except,
}: {
  label: string;
  value: string | null;
  onChange: (id: string | null) => void;
  except: string;
}) {
  const [typed, setTyped] = useState('');
  const [query] = useDebouncedValue(typed.trim(), 200);
  const input = { orderBy: 'name', direction: 'ascending', ...(query && { query }) } as const;
  const machines = useQuery({
    queryKey: [NOUN, 'list', input],
    queryFn: () => countersign.machines.list.query(input),
    placeholderData: keepPreviousData,
  });
  const found = machines.data?.data.filter(({ id }) => id !== except) ?? [];
  return (
    <Select
      label={label}
      placeholder="Part of a name"
      searchable
      value={value}
      onChange={onChange}
      searchValue={typed}
      onSearchChange={setTyped}
      data={found.map(({ id, name }) => ({ value: id, label: name }))}
      nothingFoundMessage="No machine is called so"
      data-autofocus
    />
  );
}

function Narrowing({ edge }: { edge: MachineScope }) {
  const [isOpen, { open, close }] = useDisclosure();
  return (
    <>
      <Button size="xs" variant="default" onClick={open}>
        Change scopes
      </Button>
      <FormDialog title="Change scopes" isOpen={isOpen} onClose={close}>
        <NarrowForm edge={edge} onDone={close} />
      </FormDialog>
    </>
  );
}

function NarrowForm({ edge, onDone }: { edge: MachineScope; onDone: () => void }) {
  const { fromMachineId, toMachineId } = edge;
  const [scopes, setScopes] = useState(edge.scopes);
  const saving = useChange(
    NOUN,
    (input: Inputs['machineScopes']['update']) => countersign.machineScopes.update.mutate(input),
    onDone,
  );
  return (
    <DialogForm
      action={saving}
      label="Save"
      onSubmit={() => saving.mutate({ fromMachineId, toMachineId, scopes })}
      onCancel={onDone}
    >
      <Text size="sm">It holds for tokens that are there already too: they are judged anew at each use.</Text>
      <ScopesOfEdge value={scopes} onChange={setScopes} />
    </DialogForm>
  );
}

function Revocation({ edge, name }: { edge: MachineScope; name: string }) {
  const { fromMachineId, toMachineId } = edge;
  const [isOpen, { open, close }] = useDisclosure();
  const revoking = useChange(
    NOUN,
    () => countersign.machineScopes.delete.mutate({ fromMachineId, toMachineId }),
    close,
  );
  return (
    <>
      <Button size="xs" color="red" variant="outline" onClick={open}>
        Revoke
      </Button>
      <Confirm
        isOpen={isOpen}
        onClose={close}
        title="Revoke"
        name={name}
        action={{ ...revoking, mutate: () => revoking.mutate(undefined) }}
      >
        The one may not call the other any more: tokens for it are refused from now on.
      </Confirm>
    </>
  );
}
