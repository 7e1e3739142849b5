/** One API key: what it is and may, how much it is used, and what can be done to it. */
import { Anchor, Code, Group, NumberInput, Stack, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { EditApiKey } from './api-key-form.tsx';
import { ApiKeyState } from './api-key-state.tsx';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton, DialogButton, EnableButton, SecretButton } from './dialog-buttons.tsx';
import { sayDuration } from './duration.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, useOverlaps } from './rotation.tsx';
import { Time } from './time.tsx';
import { UsageChart } from './usage-chart.tsx';

type ApiKey = Outputs['apiKeys']['get'];

export function ApiKeyDetails() {
  const { id = '' } = useParams();
  const key = useQuery({
    queryKey: ['apiKeys', 'one', id],
    queryFn: () => countersign.apiKeys.get.query({ id }),
  });
  return (
    <Stack>
      <Anchor component={Link} to="/api-keys" size="sm">
        All API keys
      </Anchor>
      <Failure error={key.error} onRetry={key.refetch} />
      {key.data && <Details apiKey={key.data} />}
    </Stack>
  );
}

function Details({ apiKey }: { apiKey: ApiKey }) {
  const mayCall = useMayCall();
  const overlap = useOverlaps('apiKeys', apiKey.id).get(apiKey.id);
  const mayEnd = mayCall('apiKeys.cancelRotation') && apiKey.state !== 'revoked';
  return (
    <Stack gap="xl">
      <Stack>
        <Group justify="space-between">
          <Group>
            <Title order={2} size="h3">
              {apiKey.name}
            </Title>
            <ApiKeyState apiKey={apiKey} />
          </Group>
          <Actions apiKey={apiKey} />
        </Group>
        <Overlap
          noun="apiKeys"
          id={apiKey.id}
          endsAt={apiKey.state === 'revoked' ? undefined : overlap}
          cancel={mayEnd ? (input) => countersign.apiKeys.cancelRotation.mutate(input) : undefined}
          complete={mayEnd ? (input) => countersign.apiKeys.completeRotation.mutate(input) : undefined}
        />
        <ApiKeyFacts apiKey={apiKey} />
      </Stack>
      <Usage id={apiKey.id} />
    </Stack>
  );
}

function ApiKeyFacts({ apiKey }: { apiKey: ApiKey }) {
  const { rateLimit, rotation } = apiKey;
  return (
    <Facts
      facts={{
        Id: <Code>{apiKey.id}</Code>,
        Subject: (
          <Anchor component={Link} to={`/api-keys?subject=${encodeURIComponent(apiKey.subject)}`} size="sm">
            {apiKey.subject}
          </Anchor>
        ),
        'Created by': apiKey.createdBy ?? '–',
        Begins: <Code>{apiKey.start}</Code>,
        Description: apiKey.description ?? '–',
        Scopes: apiKey.scopes.join(' ') || 'none',
        Claims: apiKey.claims ? <Code>{JSON.stringify(apiKey.claims)}</Code> : 'none',
        Policy: apiKey.policyId ? <Code>{apiKey.policyId}</Code> : 'none',
        'Rate limit': rateLimit
          ? `${rateLimit.count.toLocaleString()} within ${sayDuration(rateLimit.windowSeconds)}`
          : 'none',
        'Credits left': apiKey.remainingCredits?.toLocaleString() ?? 'not limited',
        'May be used from': apiKey.allowedCidrs?.join(', ') ?? 'anywhere',
        'Rotated every': rotation ? sayDuration(rotation.periodSeconds) : 'never by policy',
        Expires: <Time at={apiKey.expiresAt} />,
        ...(apiKey.revokedAt !== null && {
          Revoked: (
            <>
              <Time at={apiKey.revokedAt} />, {apiKey.revocationReason}
              {apiKey.revocationNote && `: ${apiKey.revocationNote}`}
            </>
          ),
        }),
        'Last used': <Time at={apiKey.lastUsedAt} />,
        Created: <Time at={apiKey.createdAt} />,
      }}
    />
  );
}

function Usage({ id }: { id: string }) {
  const usage = useQuery({
    queryKey: ['usage', 'apiKeys', id],
    queryFn: () => countersign.usage.ofApiKeys.query({ ids: [id] }),
  });
  const [found] = usage.data?.data ?? [];
  return (
    <Stack>
      <Title order={3} size="h4">
        Usage over 30 days
      </Title>
      <Failure error={usage.error} onRetry={usage.refetch} />
      {usage.data && found && <UsageChart {...usage.data} usage={found.usage} />}
    </Stack>
  );
}

function Actions({ apiKey }: { apiKey: ApiKey }) {
  return (
    <Group gap="xs">
      {apiKey.state === 'revoked' ? <Deletion apiKey={apiKey} /> : <Changes apiKey={apiKey} />}
    </Group>
  );
}

function Changes({ apiKey }: { apiKey: ApiKey }) {
  const mayCall = useMayCall();
  const { id, name, enabled } = apiKey;
  return (
    <>
      {mayCall('apiKeys.update') && (
        <DialogButton size="xs" variant="default" label="Edit" title="Edit API key">
          {(close) => <EditApiKey apiKey={apiKey} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('apiKeys.setCredits') && (
        <DialogButton size="xs" variant="default" label="Credits" title="Set credits">
          {(close) => <CreditsForm apiKey={apiKey} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('apiKeys.rotate') && (
        <SecretButton
          size="xs"
          variant="default"
          label="Rotate"
          title="Rotate API key"
          shownAs="The new value"
        >
          {(done, close) => (
            <RotateForm
              noun="apiKeys"
              id={id}
              rotate={(input) => countersign.apiKeys.rotate.mutate(input)}
              onDone={done}
              onCancel={close}
            />
          )}
        </SecretButton>
      )}
      {mayCall('apiKeys.disable') && (
        <EnableButton noun="apiKeys" id={id} enabled={enabled} calls={countersign.apiKeys} />
      )}
      {mayCall('apiKeys.revoke') && (
        <ConfirmButton
          noun="apiKeys"
          label="Revoke"
          title="Revoke API key"
          name={name}
          act={() => countersign.apiKeys.revoke.mutate({ id })}
        >
          Whatever uses it is refused from then on, and those who follow are told at once. This cannot be
          undone.
        </ConfirmButton>
      )}
    </>
  );
}

function Deletion({ apiKey: { id, name } }: { apiKey: ApiKey }) {
  const mayDelete = useMayCall()('apiKeys.delete');
  const navigate = useNavigate();
  if (!mayDelete) return null;
  return (
    <ConfirmButton
      noun="apiKeys"
      label="Delete"
      title="Delete API key"
      name={name}
      act={() => countersign.apiKeys.delete.mutate({ id })}
      onDone={() => navigate('/api-keys')}
    >
      Its usage goes with it. What was done to it stays among the events. It would go by itself when its
      retention is over.
    </ConfirmButton>
  );
}

function CreditsForm({ apiKey, onDone }: { apiKey: ApiKey; onDone: () => void }) {
  const [remaining, setRemaining] = useState<number | ''>(apiKey.remainingCredits ?? '');
  const setting = useChange(
    'apiKeys',
    () =>
      countersign.apiKeys.setCredits.mutate({
        id: apiKey.id,
        remaining: remaining === '' ? null : remaining,
      }),
    onDone,
  );
  return (
    <DialogForm action={setting} label="Set" onSubmit={() => setting.mutate(undefined)} onCancel={onDone}>
      <NumberInput
        label="Credits left"
        description="What it may spend from now on, whatever it was before; empty for no such limit. A refill ends with this"
        min={0}
        value={remaining}
        onChange={(entered) => setRemaining(entered === '' ? '' : Number(entered))}
        data-autofocus
      />
    </DialogForm>
  );
}
