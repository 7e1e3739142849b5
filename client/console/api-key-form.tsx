/** What is entered of an API key, when it is created and when it is changed. */
import {
  Accordion,
  Group,
  JsonInput,
  NativeSelect,
  NumberInput,
  Stack,
  Switch,
  TextInput,
} from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import type { ApiKey } from './api-key-state.tsx';
import { useChange } from './change.ts';
import { countersign, type Inputs } from './countersign.ts';
import { DurationInput } from './duration.tsx';
import { DialogForm } from './form-dialog.tsx';
import { ListInput } from './list-input.tsx';
import { RotationPolicyInput } from './rotation.tsx';

interface Entered {
  subject: string;
  name: string;
  description: string;
  scopes: string[];
  /** JSON, or nothing. */
  claims: string;
  policyId: string;
  /** Null for what the policy gives. */
  ttlSeconds: number | null;
  neverExpires: boolean;
  rateLimit: { count: number | ''; windowSeconds: number | null };
  credits: number | '';
  allowedCidrs: string[];
  rotation: ApiKey['rotation'];
}

const BLANK: Entered = {
  subject: '',
  name: '',
  description: '',
  scopes: [],
  claims: '',
  policyId: '',
  ttlSeconds: null,
  neverExpires: false,
  rateLimit: { count: '', windowSeconds: 60 },
  credits: '',
  allowedCidrs: [],
  rotation: null,
};

const enteredOf = (key: ApiKey): Entered => ({
  ...BLANK,
  subject: key.subject,
  name: key.name,
  description: key.description ?? '',
  scopes: key.scopes,
  claims: key.claims ? JSON.stringify(key.claims, null, 2) : '',
  rateLimit: key.rateLimit ?? BLANK.rateLimit,
  allowedCidrs: key.allowedCidrs ?? [],
  rotation: key.rotation,
});

type Claims = Inputs['apiKeys']['create']['claims'];

/** What both kinds of change take. */
function sharedOf(entered: Entered) {
  const { count, windowSeconds } = entered.rateLimit;
  return {
    name: entered.name.trim(),
    description: entered.description.trim() || null,
    scopes: entered.scopes,
    claims: (entered.claims.trim() === '' ? null : JSON.parse(entered.claims)) as NonNullable<Claims> | null,
    allowedCidrs: entered.allowedCidrs.length === 0 ? null : entered.allowedCidrs,
    rotation: entered.rotation,
    rateLimit: count === '' || windowSeconds === null ? null : { count, windowSeconds },
  };
}

/** What is left empty is the policy's to give, and so is not said. */
function createInputOf(entered: Entered): Inputs['apiKeys']['create'] {
  const { rateLimit, ...shared } = sharedOf(entered);
  return {
    ...shared,
    subject: entered.subject,
    ...(rateLimit && { rateLimit }),
    ...(entered.policyId !== '' && { policyId: entered.policyId }),
    ...(entered.credits !== '' && { credits: { remaining: entered.credits } }),
    ...(entered.neverExpires
      ? { expiresAt: null }
      : entered.ttlSeconds !== null && { ttlSeconds: entered.ttlSeconds }),
  };
}

export function CreateApiKey({
  subject,
  onDone,
  onCancel,
}: {
  subject: string;
  onDone: (secret: string | null) => void;
  onCancel: () => void;
}) {
  const creating = useChange(
    'apiKeys',
    (entered: Entered) => countersign.apiKeys.create.mutate(createInputOf(entered)),
    ({ secret = null }) => onDone(secret),
  );
  return (
    <ApiKeyForm
      initial={{ ...BLANK, subject }}
      isNew
      action={creating}
      onSubmit={creating.mutate}
      onCancel={onCancel}
    />
  );
}

export function EditApiKey({ apiKey, onDone }: { apiKey: ApiKey; onDone: () => void }) {
  const saving = useChange(
    'apiKeys',
    (entered: Entered) =>
      countersign.apiKeys.update.mutate({
        id: apiKey.id,
        ...sharedOf(entered),
        ...(entered.neverExpires
          ? { expiresAt: null }
          : entered.ttlSeconds !== null && { expiresAt: Date.now() + entered.ttlSeconds * 1000 }),
      }),
    onDone,
  );
  return (
    <ApiKeyForm
      initial={enteredOf(apiKey)}
      isNew={false}
      action={saving}
      onSubmit={saving.mutate}
      onCancel={onDone}
    />
  );
}

function isObject(json: string): boolean {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

function ApiKeyForm({
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
  const { subject, name, claims, neverExpires, ttlSeconds, rateLimit, rotation } = form.values;
  const areClaimsSound = claims.trim() === '' || isObject(claims);
  return (
    <DialogForm
      action={action}
      label={isNew ? 'Create' : 'Save'}
      isReady={name.trim() !== '' && subject !== '' && areClaimsSound}
      onSubmit={() => onSubmit(form.values)}
      onCancel={onCancel}
    >
      {isNew && (
        <TextInput
          label="Subject"
          description="On whose behalf it acts, such as user_42 or org_7"
          {...form.getInputProps('subject')}
          autoComplete="off"
          data-autofocus
          required
        />
      )}
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" required />
      <TextInput label="Description" {...form.getInputProps('description')} autoComplete="off" />
      <ListInput label="Scopes" description="What it may do" {...form.getInputProps('scopes')} />
      {isNew && <PolicyChoice {...form.getInputProps('policyId')} />}
      {!neverExpires && (
        <DurationInput
          label="Expires in"
          description={
            isNew ? 'Empty for what the policy gives' : 'Counted from now; empty to leave it as it is'
          }
          value={ttlSeconds}
          onChange={(seconds) => form.setFieldValue('ttlSeconds', seconds)}
        />
      )}
      <Switch label="Never expires" {...form.getInputProps('neverExpires', { type: 'checkbox' })} />
      <Accordion variant="contained">
        <Accordion.Item value="limits">
          <Accordion.Control>Limits</Accordion.Control>
          <Accordion.Panel>
            <Stack>
              <Group align="flex-end" grow>
                <NumberInput
                  label="Verifications at most"
                  description="Empty for no limit"
                  min={1}
                  value={rateLimit.count}
                  onChange={(count) =>
                    form.setFieldValue('rateLimit.count', count === '' ? '' : Number(count))
                  }
                />
                <DurationInput
                  label="within"
                  value={rateLimit.windowSeconds}
                  onChange={(seconds) => form.setFieldValue('rateLimit.windowSeconds', seconds)}
                />
              </Group>
              {isNew && (
                <NumberInput
                  label="Credits"
                  description="What it may spend; empty for no such limit"
                  min={0}
                  value={form.values.credits}
                  onChange={(credits) => form.setFieldValue('credits', credits === '' ? '' : Number(credits))}
                />
              )}
              <ListInput
                label="May be used from"
                description="CIDR blocks, such as 192.0.2.0/24; none for anywhere"
                {...form.getInputProps('allowedCidrs')}
              />
            </Stack>
          </Accordion.Panel>
        </Accordion.Item>
        <Accordion.Item value="more">
          <Accordion.Control>Claims and rotation</Accordion.Control>
          <Accordion.Panel>
            <Stack>
              <JsonInput
                label="Claims"
                description="What verifying it answers besides, as a JSON object of at most 4 KB"
                autosize
                minRows={3}
                error={areClaimsSound ? null : 'Wanted a JSON object'}
                {...form.getInputProps('claims')}
              />
              <RotationPolicyInput
                value={rotation}
                onChange={(policy) => form.setFieldValue('rotation', policy)}
              />
            </Stack>
          </Accordion.Panel>
        </Accordion.Item>
      </Accordion>
    </DialogForm>
  );
}

const POLICIES_MAX = 100;

function PolicyChoice(props: { value?: string; onChange?: (value: unknown) => void }) {
  const policies = useQuery({
    queryKey: ['keyPolicies', 'all'],
    queryFn: () => countersign.keyPolicies.list.query({ limit: POLICIES_MAX }),
  });
  const { data = [] } = policies.data ?? {};
  if (data.length === 0) return null;
  const byDefault = data.find(({ isDefault }) => isDefault);
  return (
    <NativeSelect
      label="Policy"
      description="What it may be, and is given"
      data={[
        { value: '', label: byDefault ? `The default one, ${byDefault.name}` : 'None' },
        ...data.map(({ id, name }) => ({ value: id, label: name })),
      ]}
      {...props}
    />
  );
}
