/** Key policies: what API keys created under one may be, and are given. */
import { Badge, Code, Group, NumberInput, Stack, Switch, Table, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { useChange } from './change.ts';
import { countersign, type Inputs, type Outputs } from './countersign.ts';
import { ConfirmButton, DialogButton } from './dialog-buttons.tsx';
import { DurationInput, sayDuration } from './duration.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import { useMayCall } from './permission.ts';

type KeyPolicy = Outputs['keyPolicies']['get'];

/** There are no more. */
const POLICIES_MAX = 100;

export function KeyPolicies() {
  const mayCall = useMayCall();
  const policies = useQuery({
    queryKey: ['keyPolicies', 'all'],
    queryFn: () => countersign.keyPolicies.list.query({ limit: POLICIES_MAX }),
  });
  const { data = [] } = policies.data ?? {};
  return (
    <Stack>
      <Group>
        {mayCall('keyPolicies.create') && (
          <DialogButton label="Create policy" title="Create policy">
            {(close) => <CreatePolicy onDone={close} />}
          </DialogButton>
        )}
      </Group>
      <Failure error={policies.error} onRetry={policies.refetch} />
      {policies.data && data.length === 0 && (
        <Empty title="No key policies yet">
          A policy bounds what keys may be: their scopes, their lifetime, how many a subject has.
        </Empty>
      )}
      {data.length > 0 && (
        <Table.ScrollContainer minWidth={720}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Name</Table.Th>
                <Table.Th>Prefix</Table.Th>
                <Table.Th>Scopes</Table.Th>
                <Table.Th>Lifetime</Table.Th>
                <Table.Th>Live keys</Table.Th>
                <Table.Th>Change</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((policy) => (
                <Row key={policy.id} policy={policy} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

function Row({ policy }: { policy: KeyPolicy }) {
  const mayCall = useMayCall();
  const { id, name, isDefault, prefix, allowedScopes, maxTtlSeconds, liveKeysMax } = policy;
  return (
    <Table.Tr>
      <Table.Td>
        {name} {isDefault && <Badge variant="default">default</Badge>}
      </Table.Td>
      <Table.Td>
        <Code>{prefix}</Code>
      </Table.Td>
      <Table.Td style={{ overflowWrap: 'anywhere' }}>{allowedScopes?.join(' ') ?? 'any'}</Table.Td>
      <Table.Td>{maxTtlSeconds === null ? 'any' : `at most ${sayDuration(maxTtlSeconds)}`}</Table.Td>
      <Table.Td>{liveKeysMax === null ? 'any number' : `at most ${liveKeysMax.toLocaleString()}`}</Table.Td>
      <Table.Td>
        <Group gap="xs" wrap="nowrap">
          {mayCall('keyPolicies.update') && (
            <DialogButton size="xs" variant="default" label="Edit" of={name} title="Edit policy">
              {(close) => <EditPolicy policy={policy} onDone={close} />}
            </DialogButton>
          )}
          {mayCall('keyPolicies.delete') && (
            <ConfirmButton
              noun="keyPolicies"
              label="Delete"
              of={name}
              title="Delete policy"
              name={name}
              act={() => countersign.keyPolicies.delete.mutate({ id })}
            >
              Keys that exist keep what they have, and are held to nothing any more when they are changed.
            </ConfirmButton>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

function CreatePolicy({ onDone }: { onDone: () => void }) {
  const creating = useChange(
    'keyPolicies',
    (input: Inputs['keyPolicies']['create']) => countersign.keyPolicies.create.mutate(input),
    onDone,
  );
  return (
    <PolicyForm
      initial={BLANK}
      label="Create"
      action={creating}
      onSubmit={creating.mutate}
      onCancel={onDone}
    />
  );
}

function EditPolicy({ policy, onDone }: { policy: KeyPolicy; onDone: () => void }) {
  const saving = useChange(
    'keyPolicies',
    (input: Entered) => countersign.keyPolicies.update.mutate({ id: policy.id, ...input }),
    onDone,
  );
  return (
    <PolicyForm
      initial={enteredOf(policy)}
      label="Save"
      action={saving}
      onSubmit={saving.mutate}
      onCancel={onDone}
    />
  );
}

type Entered = Pick<
  KeyPolicy,
  | 'name'
  | 'isDefault'
  | 'prefix'
  | 'allowedScopes'
  | 'defaultTtlSeconds'
  | 'maxTtlSeconds'
  | 'liveKeysMax'
  | 'retentionSeconds'
>;

const BLANK: Entered = {
  name: '',
  isDefault: false,
  prefix: 'ak_',
  allowedScopes: null,
  defaultTtlSeconds: null,
  maxTtlSeconds: null,
  liveKeysMax: null,
  retentionSeconds: 90 * 86_400,
};

const enteredOf = (policy: KeyPolicy): Entered => ({
  name: policy.name,
  isDefault: policy.isDefault,
  prefix: policy.prefix,
  allowedScopes: policy.allowedScopes,
  defaultTtlSeconds: policy.defaultTtlSeconds,
  maxTtlSeconds: policy.maxTtlSeconds,
  liveKeysMax: policy.liveKeysMax,
  retentionSeconds: policy.retentionSeconds,
});

function PolicyForm({
  initial,
  label,
  action,
  onSubmit,
  onCancel,
}: {
  initial: Entered;
  label: string;
  action: { isPending: boolean; error: unknown };
  onSubmit: (entered: Entered) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: initial });
  const { name, allowedScopes, defaultTtlSeconds, maxTtlSeconds, liveKeysMax, retentionSeconds } =
    form.values;
  const setSeconds = (field: 'defaultTtlSeconds' | 'maxTtlSeconds') => (seconds: number | null) =>
    form.setFieldValue(field, seconds);
  return (
    <DialogForm
      action={action}
      label={label}
      isReady={name.trim() !== ''}
      onSubmit={() => onSubmit({ ...form.values, name: name.trim() })}
      onCancel={onCancel}
    >
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus required />
      <Switch
        label="Applies to keys that name none"
        {...form.getInputProps('isDefault', { type: 'checkbox' })}
      />
      <TextInput
        label="Prefix"
        description="What values begin with: ak_, or one that was registered"
        {...form.getInputProps('prefix')}
        autoComplete="off"
      />
      <Switch
        label="Any scope"
        checked={allowedScopes === null}
        onChange={(event) => form.setFieldValue('allowedScopes', event.currentTarget.checked ? null : [])}
      />
      {allowedScopes !== null && (
        <ListInput
          label="Scopes"
          description="A key may have these and no others"
          value={allowedScopes}
          onChange={(scopes) => form.setFieldValue('allowedScopes', scopes)}
        />
      )}
      <DurationInput
        label="Lifetime where none is asked for"
        description="Empty for the longest"
        value={defaultTtlSeconds}
        onChange={setSeconds('defaultTtlSeconds')}
      />
      <DurationInput
        label="Longest lifetime"
        description="Empty for forever"
        value={maxTtlSeconds}
        onChange={setSeconds('maxTtlSeconds')}
      />
      <NumberInput
        label="Live keys of a subject"
        description="Empty for any number"
        min={1}
        value={liveKeysMax ?? ''}
        onChange={(entered) => form.setFieldValue('liveKeysMax', entered === '' ? null : Number(entered))}
      />
      <DurationInput
        label="Kept after they ended"
        value={retentionSeconds}
        onChange={(seconds) => form.setFieldValue('retentionSeconds', seconds ?? 0)}
        min={0}
      />
    </DialogForm>
  );
}
