/** Scopes: what access tokens may be asked for with, in the words that users are shown. */
import { Badge, Code, Group, Stack, Switch, Table, Textarea, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton, DialogButton } from './dialog-buttons.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput, type ListInputProps } from './list-input.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { WideTable } from './wide-table.tsx';

type OauthScope = Outputs['oauthScopes']['list']['data'][number];

export function OauthScopes() {
  const mayCall = useMayCall();
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const scopes = useQuery({
    queryKey: ['oauthScopes', 'list', input],
    queryFn: () => countersign.oauthScopes.list.query(input),
  });
  return (
    <Stack>
      <Group>
        {mayCall('oauthScopes.create') && (
          <DialogButton label="Create scope" title="Create scope">
            {(close) => <CreateScope onDone={close} />}
          </DialogButton>
        )}
      </Group>
      <Failure error={scopes.error} onRetry={scopes.refetch} />
      <WideTable minWidth={640}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Scope</Table.Th>
            <Table.Th>What users read</Table.Th>
            <Table.Th>Resource</Table.Th>
            <Table.Th>Advertised</Table.Th>
            <Table.Th>Change</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {scopes.data?.data.map((scope) => (
            <Row key={scope.name} scope={scope} />
          ))}
        </Table.Tbody>
      </WideTable>
      <Pages paging={paging} nextCursor={scopes.data?.nextCursor ?? null} />
    </Stack>
  );
}

function Row({ scope }: { scope: OauthScope }) {
  const mayCall = useMayCall();
  const { name, description, resource, advertised, builtIn } = scope;
  return (
    <Table.Tr>
      <Table.Td>
        <Code>{name}</Code> {builtIn && <Badge variant="default">built in</Badge>}
      </Table.Td>
      <Table.Td style={{ overflowWrap: 'anywhere' }}>{description}</Table.Td>
      <Table.Td style={{ overflowWrap: 'anywhere' }}>{resource ?? 'any'}</Table.Td>
      <Table.Td>{advertised ? 'yes' : 'no'}</Table.Td>
      <Table.Td>
        <Group gap="xs" wrap="nowrap">
          {mayCall('oauthScopes.update') && !builtIn && (
            <DialogButton size="xs" variant="default" label="Edit" of={name} title="Edit scope">
              {(close) => <EditScope scope={scope} onDone={close} />}
            </DialogButton>
          )}
          {mayCall('oauthScopes.delete') && !builtIn && (
            <ConfirmButton
              noun="oauthScopes"
              label="Delete"
              of={name}
              title="Delete scope"
              name={name}
              act={() => countersign.oauthScopes.delete.mutate({ name })}
            >
              No token is given it any more. Tokens that have it keep it until they end.
            </ConfirmButton>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

interface Entered {
  name: string;
  description: string;
  advertised: boolean;
  resource: string;
}

const BLANK: Entered = { name: '', description: '', advertised: true, resource: '' };

const inputOf = (entered: Entered) => ({
  ...entered,
  name: entered.name.trim(),
  description: entered.description.trim(),
  resource: entered.resource.trim() || null,
});

function CreateScope({ onDone }: { onDone: () => void }) {
  const creating = useChange(
    'oauthScopes',
    (entered: Entered) => countersign.oauthScopes.create.mutate(inputOf(entered)),
    onDone,
  );
  return <ScopeForm initial={BLANK} isNew action={creating} onSubmit={creating.mutate} onCancel={onDone} />;
}

function EditScope({ scope, onDone }: { scope: OauthScope; onDone: () => void }) {
  const { name, description, advertised, resource } = scope;
  const saving = useChange(
    'oauthScopes',
    (entered: Entered) => countersign.oauthScopes.update.mutate(inputOf(entered)),
    onDone,
  );
  return (
    <ScopeForm
      initial={{ name, description, advertised, resource: resource ?? '' }}
      isNew={false}
      action={saving}
      onSubmit={saving.mutate}
      onCancel={onDone}
    />
  );
}

function ScopeForm({
  initial,
  isNew,
  action,
  onSubmit,
  onCancel,
}: {
  initial: Entered;
  isNew: boolean;
  action: { isPending: boolean; error: unknown };
  onSubmit: (entered: Entered) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: initial });
  const { name, description } = form.values;
  return (
    <DialogForm
      action={action}
      label={isNew ? 'Create' : 'Save'}
      isReady={name.trim() !== '' && description.trim() !== ''}
      onSubmit={() => onSubmit(form.values)}
      onCancel={onCancel}
    >
      {isNew && (
        <TextInput
          label="Name"
          description="What programs ask for, such as invoices:read"
          {...form.getInputProps('name')}
          autoComplete="off"
          data-autofocus
          required
        />
      )}
      <Textarea
        label="What users read"
        description="After “It may”, such as: read your invoices"
        {...form.getInputProps('description')}
        autosize
        required
      />
      <TextInput
        label="Resource"
        placeholder="https://api.example.com"
        description="The URL of the API that it belongs to (RFC 8707); empty for any"
        {...form.getInputProps('resource')}
        autoComplete="off"
      />
      <Switch
        label="Advertised"
        description="The server’s metadata names it, and agents may ask for it by themselves"
        {...form.getInputProps('advertised', { type: 'checkbox' })}
      />
    </DialogForm>
  );
}

const SUGGESTED_MAX = 100;

/** Scopes, of which those that there are are suggested. */
export function ScopesInput(props: ListInputProps) {
  const scopes = useQuery({
    queryKey: ['oauthScopes', 'suggested'],
    queryFn: () => countersign.oauthScopes.list.query({ limit: SUGGESTED_MAX }),
    enabled: useMayCall()('oauthScopes.list'),
  });
  return <ListInput {...props} data={scopes.data?.data.map(({ name }) => name) ?? []} />;
}
