/** Try it: a credential is pasted, and what verifying it answers is shown, with why. */
import { Alert, Button, Code, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { countersign, type Outputs } from './countersign.ts';
import { Failure } from './failure.tsx';
import { ListInput } from './list-input.tsx';

type Answer = Outputs['credentials']['verify'];
type Reason = Extract<Answer, { valid: false }>['reason'];

/** Why, in words; in the order in which they are judged. */
const WHY: Record<Reason, string> = {
  malformed: 'It has not the form of any credential of ours: it is mistyped, cut off, or made up.',
  wrong_kind:
    'It is of another kind than what was asked for, or one that is never verified, such as a secret key.',
  unknown: 'Nothing is known of it: it was never issued here, or it is gone.',
  audience_required: 'It is an M2M token: say which machine it was presented to.',
  wrong_audience: 'It is for another machine, or its machine may not call this one now.',
  revoked: 'It was revoked.',
  disabled: 'It is disabled, or its machine or subject is.',
  expired: 'It has expired.',
  ip_not_allowed: 'It may not be used from this address, or no address was told.',
  proof_required: 'It is bound to a key, and no proof of that key came along.',
  insufficient_scope: 'It has not all the scopes that were asked for.',
  rate_limited: 'It was verified too often; it is told when it may be again.',
  out_of_credits: 'It has not the credits that this costs.',
};

export default function TryIt() {
  const [credential, setCredential] = useState('');
  const [audience, setAudience] = useState('');
  const [scopes, setScopes] = useState<string[]>([]);
  const [ip, setIp] = useState('');
  const verifying = useMutation({
    mutationFn: () =>
      countersign.credentials.verify.mutate({
        credential: credential.trim(),
        // It is looked at, and not used.
        cost: 0,
        ...(audience.trim() && { audience: audience.trim() }),
        ...(scopes.length > 0 && { scopes }),
        ...(ip.trim() && { ip: ip.trim() }),
      }),
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    verifying.mutate();
  }
  return (
    <Stack>
      <form onSubmit={submit}>
        <Stack maw={640}>
          <PasswordInput
            label="Credential"
            description="It goes to this server, and is kept nowhere. Trying it counts as one verification, and costs no credits"
            value={credential}
            onChange={(event) => setCredential(event.currentTarget.value)}
            visibilityToggleButtonProps={{ 'aria-label': 'Show or hide the credential' }}
            autoComplete="off"
            required
          />
          <TextInput
            label="Presented to"
            placeholder="mch_…"
            description="Of an M2M token, the machine"
            value={audience}
            onChange={(event) => setAudience(event.currentTarget.value)}
            autoComplete="off"
          />
          <ListInput
            label="Scopes"
            description="It must have all of them"
            value={scopes}
            onChange={setScopes}
          />
          <TextInput
            label="From the address"
            placeholder="192.0.2.7"
            value={ip}
            onChange={(event) => setIp(event.currentTarget.value)}
            autoComplete="off"
          />
          <div>
            <Button type="submit" disabled={credential.trim() === ''} loading={verifying.isPending}>
              Verify
            </Button>
          </div>
        </Stack>
      </form>
      <Failure error={verifying.error} />
      {verifying.data && <Result answer={verifying.data} />}
      <Decoded jwt={credential.trim()} />
    </Stack>
  );
}

function Result({ answer }: { answer: Answer }) {
  return (
    <Stack>
      {answer.valid ? (
        <Alert color="blue" title="Valid" role="status">
          It stands for {answer.subject}, as {answer.kind.replaceAll('_', ' ')}.
        </Alert>
      ) : (
        <Alert color="red" title={answer.reason} role="status">
          {WHY[answer.reason]}
        </Alert>
      )}
      <Title order={2} size="h4">
        The answer
      </Title>
      <Code block tabIndex={0}>
        {JSON.stringify(answer, null, 2)}
      </Code>
    </Stack>
  );
}

/** What a JWT says of itself, read here and checked by nobody. Renders nothing for what is none. */
function Decoded({ jwt }: { jwt: string }) {
  const [header, claims] = jwt.split('.', 2).map(decode);
  if (!header || !claims) return null;
  return (
    <Stack>
      <Title order={2} size="h4">
        What it says
      </Title>
      <Text size="sm">Read in this browser, whether or not it is valid.</Text>
      <Code block tabIndex={0}>
        {JSON.stringify({ header, claims }, null, 2)}
      </Code>
    </Stack>
  );
}

function decode(part: string): object | null {
  try {
    const bytes = Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (each) =>
      each.charCodeAt(0),
    );
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
