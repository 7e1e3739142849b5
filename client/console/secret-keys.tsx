/** Secret keys: those that manage all this, each with a role. */
import { Badge, Button, Code, Group, NativeSelect, Stack, Table, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useDisclosure } from '@mantine/hooks';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useChange } from './change.ts';
import { Confirm } from './confirm.tsx';
import { countersign, type Inputs, type Outputs, type Session } from './countersign.ts';
import { DurationInput } from './duration.tsx';
import { Failure } from './failure.tsx';
import { DialogForm, FormDialog } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, RotationPolicyInput, useOverlaps } from './rotation.tsx';
import { SESSION } from './session.tsx';
import { ShownOnce } from './shown-once.tsx';
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
      <Group>{mayCall('secretKeys.create') && <Creation />}</Group>
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
            {mayCall('secretKeys.rotate') && isLive && <Rotation secretKey={secretKey} />}
            {mayCall('secretKeys.revoke') && state !== 'revoked' && (
              <Revocation secretKey={secretKey} isOwn={isOwn} />
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

function Creation() {
  const [isOpen, { open, close }] = useDisclosure();
  const [secret, setSecret] = useState<string | null>(null);
  return (
    <>
      <Button onClick={open}>Create secret key</Button>
      <FormDialog title="Create secret key" isOpen={isOpen} onClose={close}>
        <CreateSecretKey
          onDone={(created) => {
            close();
            setSecret(created);
          }}
          onCancel={close}
        />
      </FormDialog>
      <ShownOnce title="The value of the new secret key" value={secret} onClose={() => setSecret(null)} />
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

function Rotation({ secretKey: { id, name } }: { secretKey: SecretKey }) {
  const [isOpen, { open, close }] = useDisclosure();
  const [secret, setSecret] = useState<string | null>(null);
  return (
    <>
      <Button size="xs" variant="default" onClick={open} aria-label={`Rotate ${name}`}>
        Rotate
      </Button>
      <FormDialog title="Rotate secret key" isOpen={isOpen} onClose={close}>
        <RotateForm
          noun="secretKeys"
          id={id}
          rotate={(input) => countersign.secretKeys.rotate.mutate(input)}
          onDone={(rotated) => {
            close();
            setSecret(rotated);
          }}
          onCancel={close}
        />
      </FormDialog>
      <ShownOnce title="The new value" value={secret} onClose={() => setSecret(null)} />
    </>
  );
}

function Revocation({ secretKey: { id, name }, isOwn }: { secretKey: SecretKey; isOwn: boolean }) {
  const [isOpen, { open, close }] = useDisclosure();
  const revoking = useChange('secretKeys', () => countersign.secretKeys.revoke.mutate({ id }), close);
  return (
    <>
      <Button size="xs" color="red" variant="outline" onClick={open} aria-label={`Revoke ${name}`}>
        Revoke
      </Button>
      <Confirm
        isOpen={isOpen}
        onClose={close}
        title="Revoke secret key"
        name={name}
        action={{ ...revoking, mutate: () => revoking.mutate(undefined) }}
      >
        {isOwn && 'You are signed in with this one, and will be signed out. '}
        Whatever uses it is refused from then on, and what it minted for panels with it. This cannot be
        undone.
      </Confirm>
    </>
  );
}
