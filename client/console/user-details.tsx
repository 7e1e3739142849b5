/** One user: who it is, where they are signed in, and what they let applications do. */
import { Anchor, Code, Group, Stack, Switch, TextInput, Title } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from 'react-router';
import { useChange } from './change.ts';
import { countersign } from './countersign.ts';
import { ConfirmButton, DialogButton, EnableButton, SecretButton } from './dialog-buttons.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { OauthGrantList } from './oauth-grants.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { InviteUser } from './user-invitations.tsx';
import { UserSessions } from './user-sessions.tsx';
import { LOCAL, nameOf, type User, UserState } from './user-state.tsx';

const NOUN = 'users';

export function UserDetails() {
  const { id = '' } = useParams();
  const user = useQuery({
    queryKey: [NOUN, 'one', id],
    queryFn: () => countersign.users.get.query({ id }),
  });
  return (
    <Stack>
      <Anchor component={Link} to="/users" size="sm">
        All users
      </Anchor>
      <Failure error={user.error} onRetry={user.refetch} />
      {user.data && <Details user={user.data} />}
    </Stack>
  );
}

function Details({ user }: { user: User }) {
  const { id, source, sourceSubject, email, emailVerified, enabled } = user;
  return (
    <Stack gap="xl">
      <Stack>
        <Group justify="space-between">
          <Group>
            <Title order={2} size="h3">
              {nameOf(user)}
            </Title>
            <UserState user={user} />
          </Group>
          <Actions user={user} />
        </Group>
        <Facts
          facts={{
            Id: <Code>{id}</Code>,
            'Signs in': source === LOCAL ? 'here, by a password' : `at ${source}`,
            'Is called there': sourceSubject,
            Name: user.name ?? '–',
            'E-mail address':
              email === null ? '–' : `${email}, ${emailVerified ? 'verified' : 'not verified'}`,
            'Signed in': <Time at={user.lastSignedInAt} />,
            Created: <Time at={user.createdAt} />,
          }}
        />
      </Stack>
      <Stack>
        <Title order={3} size="h4">
          Signed in at
        </Title>
        {/* Who is disabled is signed in nowhere: the list is asked for again. */}
        <UserSessions key={String(enabled)} subject={id} />
      </Stack>
      <Stack>
        <Title order={3} size="h4">
          Allowed applications
        </Title>
        <OauthGrantList filter={{ subject: id }} shows="application" />
      </Stack>
    </Stack>
  );
}

function Actions({ user }: { user: User }) {
  const mayCall = useMayCall();
  const navigate = useNavigate();
  const { id, source, enabled } = user;
  return (
    <Group gap="xs">
      {mayCall('users.update') && (
        <DialogButton size="xs" variant="default" label="Edit" title="Edit user">
          {(close) => <EditUser user={user} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('users.invite') && source === LOCAL && (
        <SecretButton
          size="xs"
          variant="default"
          label="New password"
          title="Let them set a new password"
          shownAs="The link to a new password"
        >
          {(done, close) => <InviteUser userId={id} onDone={done} onCancel={close} />}
        </SecretButton>
      )}
      {mayCall('users.disable') && (
        <EnableButton noun={NOUN} id={id} enabled={enabled} calls={countersign.users} />
      )}
      {mayCall('users.delete') && (
        <ConfirmButton
          noun={NOUN}
          label="Delete"
          title="Delete user"
          name={nameOf(user)}
          act={() => countersign.users.delete.mutate({ id })}
          onDone={() => navigate('/users')}
        >
          They are signed out, and what they let applications do ends with them. This cannot be undone.
        </ConfirmButton>
      )}
    </Group>
  );
}

function EditUser({ user, onDone }: { user: User; onDone: () => void }) {
  const { id, name, email, emailVerified } = user;
  const form = useForm({ initialValues: { name: name ?? '', email: email ?? '', emailVerified } });
  const saving = useChange(
    NOUN,
    (entered: typeof form.values) =>
      countersign.users.update.mutate({
        id,
        name: entered.name.trim() || null,
        email: entered.email.trim() || null,
        emailVerified: entered.emailVerified,
      }),
    onDone,
  );
  return (
    <DialogForm action={saving} label="Save" onSubmit={() => saving.mutate(form.values)} onCancel={onDone}>
      <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus />
      <TextInput label="E-mail address" {...form.getInputProps('email')} autoComplete="off" />
      <Switch
        label="The address is theirs"
        description="Applications are told so: nobody checks it here"
        {...form.getInputProps('emailVerified', { type: 'checkbox' })}
      />
    </DialogForm>
  );
}
