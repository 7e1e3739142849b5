/** What is entered of a webhook endpoint, when it is created and when it is changed. */
import { Switch, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useChange } from './change.ts';
import { countersign, type Inputs, type Outputs } from './countersign.ts';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';

export type WebhookEndpoint = Outputs['webhookEndpoints']['get'];

interface Entered {
  url: string;
  description: string;
  eventTypes: string[];
  subjects: string[];
  asymmetric: boolean;
}

const BLANK: Entered = { url: '', description: '', eventTypes: [], subjects: [], asymmetric: false };

const inputOf = (entered: Entered): Inputs['webhookEndpoints']['create'] => ({
  ...entered,
  url: entered.url.trim(),
  description: entered.description.trim() || null,
  subjects: entered.subjects.length === 0 ? null : entered.subjects,
});

export function CreateWebhookEndpoint({
  onDone,
  onCancel,
}: {
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const creating = useChange(
    'webhookEndpoints',
    (entered: Entered) => countersign.webhookEndpoints.create.mutate(inputOf(entered)),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <WebhookEndpointForm
      initial={BLANK}
      label="Create"
      action={creating}
      onSubmit={creating.mutate}
      onCancel={onCancel}
    />
  );
}

export function EditWebhookEndpoint({ endpoint, onDone }: { endpoint: WebhookEndpoint; onDone: () => void }) {
  const saving = useChange(
    'webhookEndpoints',
    (entered: Entered) =>
      countersign.webhookEndpoints.update.mutate({ id: endpoint.id, ...inputOf(entered) }),
    onDone,
  );
  const { url, description, eventTypes, subjects, publicKey } = endpoint;
  return (
    <WebhookEndpointForm
      initial={{
        url,
        description: description ?? '',
        eventTypes,
        subjects: subjects ?? [],
        asymmetric: publicKey !== null,
      }}
      label="Save"
      action={saving}
      onSubmit={saving.mutate}
      onCancel={onDone}
    />
  );
}

function WebhookEndpointForm({
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
  return (
    <DialogForm
      action={action}
      label={label}
      isReady={form.values.url.trim() !== ''}
      onSubmit={() => onSubmit(form.values)}
      onCancel={onCancel}
    >
      <TextInput
        label="URL"
        placeholder="https://example.com/webhooks"
        {...form.getInputProps('url')}
        autoComplete="off"
        data-autofocus
        required
      />
      <TextInput label="Description" {...form.getInputProps('description')} autoComplete="off" />
      <ListInput
        label="Events"
        description="Such as api_key.revoked, or api_key.* for all of a noun; none for all"
        {...form.getInputProps('eventTypes')}
      />
      <ListInput
        label="Subjects"
        description="Only events of these; none for those of any and of none"
        {...form.getInputProps('subjects')}
      />
      <Switch
        label="Sign with a key pair too"
        description="A v1a signature beside v1, checked with a public key"
        {...form.getInputProps('asymmetric', { type: 'checkbox' })}
      />
    </DialogForm>
  );
}
