/** Secret keys: those that manage all this, each with a role. */
import { Badge, Code, Group, NativeSelect, Stack, Table, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useChange } from './change.ts';
import { countersign, type Inputs, type Outputs, type Session } from './countersign.ts';
import { ConfirmButton, SecretButton } from './dialog-buttons.tsx';
import { DurationInput } from './duration.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, RotationPolicyInput, useOverlaps } from './rotation.tsx';
import { SESSION } from './session.tsx';
import { Time } from './time.tsx';

type SecretKey = Outputs['secretKeys']['list']['data'][number];

const ROLES: Record<Session['role'], string> = {
  admin: 'everything',
  issuer: 'create, rotate and revoke credentials',
  interaction: 'mint panel tokens',
  read: 'list and read, events too',
  verify: 'verify, and follow the feed',
};

export default function SecretKeys() {
  const mayCall = useMayCall();
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const keys = useQuery({
    queryKey: ['secretKeys', 'list', input],
    queryFn: () => countersign.secretKeys.list.query(input),
  });
  const overlaps = useOverlaps('secretKeys');
  return (
    <Stack>
      <Group>
        {mayCall('secretKeys.create') && (
          <SecretButton
            label="Create secret key"
            title="Create secret key"
            shownAs="The value of the new secret key"
          >
            {(done, close) => <CreateSecretKey onDone={done} onCancel={close} />}
          </SecretButton>
        )}
      </Group>
      <Failure error={keys.error} onRetry={keys.refetch} />
      <Table.ScrollContainer minWidth={820}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th>
              <Table.Th>Role</Table.Th>
              <Table.Th>Begins</Table.Th>
              <Table.Th>State</Table.Th>
              <Table.Th>From</Table.Th>
              <Table.Th>Expires</Table.Th>
              <Table.Th>Last used</Table.Th>
              <Table.Th>Change</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {keys.data?.data.map((key) => (
              <Row key={key.id} secretKey={key} endsAt={overlaps.get(key.id)} />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Pages paging={paging} nextCursor={keys.data?.nextCursor ?? null} />
    </Stack>
  );
}

function Row({ secretKey, endsAt }: { secretKey: SecretKey; endsAt: number | undefined }) {
  const mayCall = useMayCall();
  const session = useQueryClient().getQueryData<Session>(SESSION);
  const { id, name, role, start, state, allowedCidrs, expiresAt, lastUsedAt } = secretKey;
  const isOwn = session?.secretKeyId === id;
  const isLive = state === 'live';
  return (
    <>
      <Table.Tr>
        <Table.Td>
          {name} {isOwn && <Badge variant="default">yours</Badge>}
        </Table.Td>
        <Table.Td>{role}</Table.Td>
        <Table.Td>
          <Code>{start}</Code>
        </Table.Td>
        <Table.Td>{state}</Table.Td>
        <Table.Td>{allowedCidrs?.join(', ') ?? 'anywhere'}</Table.Td>
        <Table.Td>
          <Time at={expiresAt} />
        </Table.Td>
        <Table.Td>
          <Time at={lastUsedAt} />
        </Table.Td>
        <Table.Td>
          <Group gap="xs" wrap="nowrap">
            {mayCall('secretKeys.rotate') && isLive && (
              <SecretButton
                size="xs"
                variant="default"
                label="Rotate"
                of={name}
                title="Rotate secret key"
                shownAs="The new value"
              >
                {(done, close) => (
                  <RotateForm
                    noun="secretKeys"
                    id={id}
                    rotate={(input) => countersign.secretKeys.rotate.mutate(input)}
                    onDone={done}
                    onCancel={close}
                  />
                )}
              </SecretButton>
            )}
            {mayCall('secretKeys.revoke') && state !== 'revoked' && (
              <ConfirmButton
                noun="secretKeys"
                label="Revoke"
                of={name}
                title="Revoke secret key"
                name={name}
                act={() => countersign.secretKeys.revoke.mutate({ id })}
              >
                {isOwn && 'You are signed in with this one, and will be signed out. '}
                Whatever uses it is refused from then on, and what it minted for panels with it. This cannot
                be undone.
              </ConfirmButton>
            )}
          </Group>
        </Table.Td>
      </Table.Tr>
      {endsAt !== undefined && isLive && (
        <Table.Tr>
          <Table.Td colSpan={8}>
            <Overlap
              noun="secretKeys"
              id={id}
              endsAt={endsAt}
              cancel={
                mayCall('secretKeys.cancelRotation')
                  ? (input) => countersign.secretKeys.cancelRotation.mutate(input)
                  : undefined
              }
              complete={
                mayCall('secretKeys.completeRotation')
                  ? (input) => countersign.secretKeys.completeRotation.mutate(input)
                  : undefined
              }
            />
          </Table.Td>
        </Table.Tr>
      )}
    </>
  );
}

interface Entered {
  name: string;
  role: Session['role'];
  allowedCidrs: string[];
  ttlSeconds: number | null;
  rotation: SecretKey['rotation'];
}

const BLANK: Entered = { name: '', role: 'verify', allowedCidrs: [], ttlSeconds: null, rotation: null };

const inputOf = ({ allowedCidrs, ttlSeconds, ...entered }: Entered): Inputs['secretKeys']['create'] => ({
  ...entered,
  name: entered.name.trim(),
  allowedCidrs: allowedCidrs.length === 0 ? null : allowedCidrs,
  ...(ttlSeconds !== null && { ttlSeconds }),
});

function CreateSecretKey({
  onDone,
  onCancel,
}: {
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: BLANK });
  const creating = useChange(
    'secretKeys',
    (entered: Entered) => countersign.secretKeys.create.mutate(inputOf(entered)),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <DialogForm
      action={creating}
      label="Create"
      isReady={form.values.name.trim() !== ''}
      onSubmit={() => creating.mutate(form.values)}
      onCancel={onCancel}
    >
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus required />
      <NativeSelect
        label="Role"
        {...form.getInputProps('role')}
        data={Object.entries(ROLES).map(([role, may]) => ({ value: role, label: `${role}: ${may}` }))}
      />
      <ListInput
        label="May be used from"
        description="CIDR blocks, such as 192.0.2.0/24; none for anywhere"
        {...form.getInputProps('allowedCidrs')}
      />
      <DurationInput
        label="Expires in"
        description="Empty for never"
        value={form.values.ttlSeconds}
        onChange={(seconds) => form.setFieldValue('ttlSeconds', seconds)}
      />
      <RotationPolicyInput
        value={form.values.rotation}
        onChange={(policy) => form.setFieldValue('rotation', policy)}
      />
    </DialogForm>
  );
}
