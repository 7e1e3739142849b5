/** One machine: what it is, whom it may call, its secret, and the code that uses it. */
import { Anchor, Button, Code, Group, Stack, Title } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { useChange } from './change.ts';
import { Confirm } from './confirm.tsx';
import { countersign } from './countersign.ts';
import { sayDuration } from './duration.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { FormDialog } from './form-dialog.tsx';
import { MachineCode } from './machine-code.tsx';
import { EditMachine } from './machine-form.tsx';
import { MachineScopes } from './machine-scopes.tsx';
import { type Machine, MachineState } from './machine-state.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, useOverlaps } from './rotation.tsx';
import { ShownOnce } from './shown-once.tsx';
import { Time } from './time.tsx';

export function MachineDetails() {
  const { id = '' } = useParams();
  const machine = useQuery({
    queryKey: ['machines', 'one', id],
    queryFn: () => countersign.machines.get.query({ id }),
  });
  return (
    <Stack>
      <Anchor component={Link} to="/machines" size="sm">
        All machines
      </Anchor>
      <Failure error={machine.error} onRetry={machine.refetch} />
      {machine.data && <Details machine={machine.data} />}
    </Stack>
  );
}

function Details({ machine }: { machine: Machine }) {
  const mayCall = useMayCall();
  const overlap = useOverlaps('machines', machine.id).get(machine.id);
  return (
    <Stack gap="xl">
      <Stack>
        <Group justify="space-between">
          <Group>
            <Title order={2} size="h3">
              {machine.name}
            </Title>
            <MachineState machine={machine} />
          </Group>
          <Actions machine={machine} />
        </Group>
        <Overlap
          noun="machines"
          id={machine.id}
          endsAt={overlap}
          cancel={
            mayCall('machines.cancelRotation')
              ? (input) => countersign.machines.cancelRotation.mutate(input)
              : undefined
          }
          complete={
            mayCall('machines.completeRotation')
              ? (input) => countersign.machines.completeRotation.mutate(input)
              : undefined
          }
        />
        <MachineFacts machine={machine} />
      </Stack>
      <MachineScopes machine={machine} />
      <MachineCode machine={machine} />
    </Stack>
  );
}

function MachineFacts({ machine }: { machine: Machine }) {
  const { rotation } = machine;
  return (
    <Facts
      facts={{
        Id: <Code>{machine.id}</Code>,
        Description: machine.description ?? '–',
        'Lifetime of a token': `${sayDuration(machine.defaultTokenTtlSeconds)}, at most ${sayDuration(machine.maxTokenTtlSeconds)}`,
        'Unexpired tokens': `at most ${machine.liveTokensMax.toLocaleString()}`,
        'Tokens in a minute': `at most ${machine.mintsPerMinuteMax.toLocaleString()}`,
        'May verify': machine.mayVerify ? 'all kinds' : 'M2M tokens addressed to it',
        'May be used from': machine.allowedCidrs?.join(', ') ?? 'anywhere',
        'Rotated every': rotation
          ? `${sayDuration(rotation.periodSeconds)}; overdue, it is ${rotation.atDeadline === 'warn' ? 'announced' : 'refused'}`
          : 'never by policy',
        'Rotate by': <Time at={machine.rotateBy} never="–" />,
        'Last used': <Time at={machine.lastUsedAt} />,
        Created: <Time at={machine.createdAt} />,
      }}
    />
  );
}

function Actions({ machine }: { machine: Machine }) {
  const mayCall = useMayCall();
  return (
    <Group gap="xs">
      {mayCall('machines.update') && <Editing machine={machine} />}
      {mayCall('machines.rotateSecret') && <Rotation machine={machine} />}
      {mayCall('machines.disable') && <Enabling machine={machine} />}
      {mayCall('machines.delete') && <Deletion machine={machine} />}
    </Group>
  );
}

function Editing({ machine }: { machine: Machine }) {
  const [isOpen, { open, close }] = useDisclosure();
  return (
    <>
      <Button size="xs" variant="default" onClick={open}>
        Edit
      </Button>
      <FormDialog title="Edit machine" isOpen={isOpen} onClose={close}>
        <EditMachine machine={machine} onDone={close} />
      </FormDialog>
    </>
  );
}

function Rotation({ machine: { id } }: { machine: Machine }) {
  const [isOpen, { open, close }] = useDisclosure();
  const [secret, setSecret] = useState<string | null>(null);
  return (
    <>
      <Button size="xs" variant="default" onClick={open}>
        Rotate secret
      </Button>
      <FormDialog title="Rotate secret" isOpen={isOpen} onClose={close}>
        <RotateForm
          noun="machines"
          id={id}
          rotate={(input) => countersign.machines.rotateSecret.mutate(input)}
          onDone={(rotated) => {
            close();
            setSecret(rotated);
          }}
          onCancel={close}
        />
      </FormDialog>
      <ShownOnce title="The new secret" value={secret} onClose={() => setSecret(null)} />
    </>
  );
}

function Enabling({ machine: { id, enabled } }: { machine: Machine }) {
  const { enable, disable } = countersign.machines;
  const setting = useChange('machines', () => (enabled ? disable : enable).mutate({ id }));
  return (
    <>
      <Button
        size="xs"
        variant="default"
        onClick={() => setting.mutate(undefined)}
        loading={setting.isPending}
      >
        {enabled ? 'Disable' : 'Enable'}
      </Button>
      <Failure error={setting.error} />
    </>
  );
}

function Deletion({ machine: { id, name } }: { machine: Machine }) {
  const navigate = useNavigate();
  const [isOpen, { open, close }] = useDisclosure();
  const deleting = useChange(
    'machines',
    () => countersign.machines.delete.mutate({ id }),
    () => navigate('/machines'),
  );
  return (
    <>
      <Button size="xs" color="red" variant="outline" onClick={open}>
        Delete
      </Button>
      <Confirm
        isOpen={isOpen}
        onClose={close}
        title="Delete machine"
        name={name}
        action={{ ...deleting, mutate: () => deleting.mutate(undefined) }}
      >
        Its secret, its tokens, and whom it may call go with it: whatever runs as it is refused from then on.
      </Confirm>
    </>
  );
}
