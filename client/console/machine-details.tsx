/** One machine: what it is, whom it may call, its secret, and the code that uses it. */
import { Anchor, Code, Group, Stack, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from 'react-router';
import { countersign } from './countersign.ts';
import { ConfirmButton, DialogButton, EnableButton, SecretButton } from './dialog-buttons.tsx';
import { sayDuration } from './duration.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { MachineCode } from './machine-code.tsx';
import { EditMachine } from './machine-form.tsx';
import { MachineScopes } from './machine-scopes.tsx';
import { type Machine, MachineState } from './machine-state.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, useOverlaps } from './rotation.tsx';
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
  const navigate = useNavigate();
  const { id, name, enabled } = machine;
  return (
    <Group gap="xs">
      {mayCall('machines.update') && (
        <DialogButton size="xs" variant="default" label="Edit" title="Edit machine">
          {(close) => <EditMachine machine={machine} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('machines.rotateSecret') && (
        <SecretButton
          size="xs"
          variant="default"
          label="Rotate secret"
          title="Rotate secret"
          shownAs="The new secret"
        >
          {(done, close) => (
            <RotateForm
              noun="machines"
              id={id}
              rotate={(input) => countersign.machines.rotateSecret.mutate(input)}
              onDone={done}
              onCancel={close}
            />
          )}
        </SecretButton>
      )}
      {mayCall('machines.disable') && (
        <EnableButton noun="machines" id={id} enabled={enabled} calls={countersign.machines} />
      )}
      {mayCall('machines.delete') && (
        <ConfirmButton
          noun="machines"
          label="Delete"
          title="Delete machine"
          name={name}
          act={() => countersign.machines.delete.mutate({ id })}
          onDone={() => navigate('/machines')}
        >
          Its secret, its tokens, and whom it may call go with it: whatever runs as it is refused from then
          on.
        </ConfirmButton>
      )}
    </Group>
  );
}
