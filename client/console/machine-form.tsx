/** What is entered of a machine, when it is created and when it is changed. */
import { Accordion, NumberInput, Stack, Switch, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useChange } from './change.ts';
import { countersign, type Inputs } from './countersign.ts';
import { DurationInput } from './duration.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import type { Machine } from './machine-state.tsx';
import { RotationPolicyInput } from './rotation.tsx';

type Entered = Pick<
  Machine,
  | 'name'
  | 'defaultTokenTtlSeconds'
  | 'maxTokenTtlSeconds'
  | 'mayVerify'
  | 'liveTokensMax'
  | 'mintsPerMinuteMax'
  | 'rotation'
> & { description: string; allowedCidrs: string[] };

/** What the server takes where nothing is said. */
const BLANK: Entered = {
  name: '',
  description: '',
  defaultTokenTtlSeconds: 3600,
  maxTokenTtlSeconds: 30 * 86_400,
  mayVerify: false,
  allowedCidrs: [],
  liveTokensMax: 1_000_000,
  mintsPerMinuteMax: 60_000,
  rotation: null,
};

const enteredOf = (machine: Machine): Entered => ({
  name: machine.name,
  description: machine.description ?? '',
  defaultTokenTtlSeconds: machine.defaultTokenTtlSeconds,
  maxTokenTtlSeconds: machine.maxTokenTtlSeconds,
  mayVerify: machine.mayVerify,
  allowedCidrs: machine.allowedCidrs ?? [],
  liveTokensMax: machine.liveTokensMax,
  mintsPerMinuteMax: machine.mintsPerMinuteMax,
  rotation: machine.rotation,
});

const inputOf = (entered: Entered): Inputs['machines']['create'] => ({
  ...entered,
  name: entered.name.trim(),
  description: entered.description.trim() || null,
  allowedCidrs: entered.allowedCidrs.length === 0 ? null : entered.allowedCidrs,
});

export function CreateMachine({
  onDone,
  onCancel,
}: {
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const creating = useChange(
    'machines',
    (input: Inputs['machines']['create']) => countersign.machines.create.mutate(input),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <MachineForm
      initial={BLANK}
      action={creating}
      label="Create"
      onSubmit={(entered) => creating.mutate(inputOf(entered))}
      onCancel={onCancel}
    />
  );
}

export function EditMachine({ machine, onDone }: { machine: Machine; onDone: () => void }) {
  const saving = useChange(
    'machines',
    (input: Inputs['machines']['update']) => countersign.machines.update.mutate(input),
    onDone,
  );
  return (
    <MachineForm
      initial={enteredOf(machine)}
      action={saving}
      label="Save"
      onSubmit={(entered) => saving.mutate({ id: machine.id, ...inputOf(entered) })}
      onCancel={onDone}
    />
  );
}

function MachineForm({
  initial,
  action,
  label,
  onSubmit,
  onCancel,
}: {
  initial: Entered;
  action: { isPending: boolean; error: unknown };
  label: string;
  onSubmit: (entered: Entered) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: initial });
  const { defaultTokenTtlSeconds, maxTokenTtlSeconds, rotation } = form.values;
  return (
    <DialogForm
      action={action}
      label={label}
      isReady={form.values.name.trim() !== ''}
      onSubmit={() => onSubmit(form.values)}
      onCancel={onCancel}
    >
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus required />
      <TextInput label="Description" {...form.getInputProps('description')} autoComplete="off" />
      <Accordion variant="contained">
        <Accordion.Item value="tokens">
          <Accordion.Control>Tokens</Accordion.Control>
          <Accordion.Panel>
            <Stack>
              <DurationInput
                label="Lifetime of a token"
                value={defaultTokenTtlSeconds}
                onChange={(seconds) => form.setFieldValue('defaultTokenTtlSeconds', seconds ?? 3600)}
              />
              <DurationInput
                label="Longest lifetime of a token"
                value={maxTokenTtlSeconds}
                onChange={(seconds) => form.setFieldValue('maxTokenTtlSeconds', seconds ?? 3600)}
              />
              <NumberInput
                label="Unexpired tokens at a time"
                min={1}
                {...form.getInputProps('liveTokensMax')}
              />
              <NumberInput label="Tokens in a minute" min={1} {...form.getInputProps('mintsPerMinuteMax')} />
            </Stack>
          </Accordion.Panel>
        </Accordion.Item>
        <Accordion.Item value="secret">
          <Accordion.Control>Its secret</Accordion.Control>
          <Accordion.Panel>
            <Stack>
              <ListInput
                label="May be used from"
                description="CIDR blocks, such as 192.0.2.0/24; none for anywhere"
                {...form.getInputProps('allowedCidrs')}
              />
              <RotationPolicyInput
                value={rotation}
                onChange={(policy) => form.setFieldValue('rotation', policy)}
              />
              <Switch
                label="May verify API keys and OAuth tokens"
                description="Without it, only M2M tokens addressed to it"
                {...form.getInputProps('mayVerify', { type: 'checkbox' })}
              />
            </Stack>
          </Accordion.Panel>
        </Accordion.Item>
      </Accordion>
    </DialogForm>
  );
}
