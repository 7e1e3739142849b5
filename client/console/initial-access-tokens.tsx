/** Initial access tokens: what an application registers itself with, where not everybody may. */
import { Group, NumberInput, Stack, Table, TextInput, Title } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton, SecretButton } from './dialog-buttons.tsx';
import { DurationInput } from './duration.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { WideTable } from './wide-table.tsx';

type InitialAccessToken = Outputs['initialAccessTokens']['list']['data'][number];

const NOUN = 'initialAccessTokens';

export function InitialAccessTokens() {
  const mayCall = useMayCall();
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const tokens = useQuery({
    queryKey: [NOUN, 'list', input],
    queryFn: () => countersign.initialAccessTokens.list.query(input),
  });
  const { data = [], nextCursor = null } = tokens.data ?? {};
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={2} size="h4">
          Initial access tokens
        </Title>
        {mayCall('initialAccessTokens.create') && (
          <SecretButton
            size="xs"
            label="Create token"
            title="Create initial access token"
            shownAs="The initial access token"
          >
            {(done, close) => <CreateToken onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={tokens.error} onRetry={tokens.refetch} />
      {tokens.data && data.length === 0 && (
        <Empty title="No initial access tokens">
          With one, a program registers itself where not everybody may.
        </Empty>
      )}
      {data.length > 0 && <TokenTable tokens={data} />}
      <Pages paging={paging} nextCursor={nextCursor} />
    </Stack>
  );
}

function TokenTable({ tokens }: { tokens: readonly InitialAccessToken[] }) {
  const mayRevoke = useMayCall()('initialAccessTokens.revoke');
  return (
    <WideTable minWidth={480}>
      <Table.Thead>
        <Table.Tr>
          <Table.Th>Name</Table.Th>
          <Table.Th>Uses left</Table.Th>
          <Table.Th>Expires</Table.Th>
          <Table.Th>Created</Table.Th>
          <Table.Th>Revoke</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {tokens.map(({ id, name, usesLeft, expiresAt, createdAt }) => (
          <Table.Tr key={id}>
            <Table.Td style={{ overflowWrap: 'anywhere' }}>{name}</Table.Td>
            <Table.Td>{usesLeft.toLocaleString()}</Table.Td>
            <Table.Td>
              <Time at={expiresAt} />
            </Table.Td>
            <Table.Td>
              <Time at={createdAt} />
            </Table.Td>
            <Table.Td>
              {mayRevoke && (
                <ConfirmButton
                  noun={NOUN}
                  label="Revoke"
                  of={name}
                  title="Revoke token"
                  name={name}
                  act={() => countersign.initialAccessTokens.revoke.mutate({ id })}
                >
                  Nobody registers with it any more. Applications that did go on.
                </ConfirmButton>
              )}
            </Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </WideTable>
  );
}

const BLANK = { name: '', uses: 1, ttlSeconds: 86_400 };

function CreateToken({ onDone, onCancel }: { onDone: (token: string | null) => void; onCancel: () => void }) {
  const form = useForm({ initialValues: BLANK });
  const creating = useChange(
    NOUN,
    (entered: typeof BLANK) =>
      countersign.initialAccessTokens.create.mutate({ ...entered, name: entered.name.trim() }),
    ({ token = null }) => onDone(token),
  );
  return (
    <DialogForm
      action={creating}
      label="Create"
      isReady={form.values.name.trim() !== ''}
      onSubmit={() => creating.mutate(form.values)}
      onCancel={onCancel}
    >
      <TextInput
        label="Name"
        description="Whom it is for"
        {...form.getInputProps('name')}
        autoComplete="off"
        data-autofocus
        required
      />
      <NumberInput
        label="Applications that may be registered with it"
        min={1}
        max={1_000}
        value={form.values.uses}
        onChange={(uses) => form.setFieldValue('uses', Number(uses) || 1)}
      />
      <DurationInput
        label="Expires in"
        value={form.values.ttlSeconds}
        onChange={(seconds) => form.setFieldValue('ttlSeconds', seconds ?? BLANK.ttlSeconds)}
      />
    </DialogForm>
  );
}
