/** Invitations: links by which somebody becomes a user, or a user sets a new password, once. */
import { Anchor, Stack, Table, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { useChange } from './change.ts';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton } from './dialog-buttons.tsx';
import { DurationInput } from './duration.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { DialogForm } from './form-dialog.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';
import { WideTable } from './wide-table.tsx';

type UserInvitation = Outputs['userInvitations']['list']['data'][number];

const NOUN = 'userInvitations';

export function UserInvitations() {
  const paging = usePaging('all');
  const input = paging.cursor ? { cursor: paging.cursor } : {};
  const invitations = useQuery({
    queryKey: [NOUN, 'list', input],
    queryFn: () => countersign.userInvitations.list.query(input),
  });
  const { data = [], nextCursor = null } = invitations.data ?? {};
  return (
    <Stack>
      <Failure error={invitations.error} onRetry={invitations.refetch} />
      {invitations.data && data.length === 0 && <Empty title="No invitation is open" />}
      {data.length > 0 && (
        <WideTable minWidth={480}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>For</Table.Th>
              <Table.Th>Makes</Table.Th>
              <Table.Th>Created</Table.Th>
              <Table.Th>Expires</Table.Th>
              <Table.Th>Take back</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data.map((invitation) => (
              <Row key={invitation.id} invitation={invitation} />
            ))}
          </Table.Tbody>
        </WideTable>
      )}
      <Pages paging={paging} nextCursor={nextCursor} />
    </Stack>
  );
}

function Row({ invitation }: { invitation: UserInvitation }) {
  const mayDelete = useMayCall()('userInvitations.delete');
  const { id, userId, name, email, createdAt, expiresAt } = invitation;
  const whom = name ?? email ?? userId ?? 'whoever has it';
  return (
    <Table.Tr>
      <Table.Td style={{ overflowWrap: 'anywhere' }}>
        {userId === null ? (
          whom
        ) : (
          <Anchor component={Link} to={`/users/${userId}`} size="sm">
            {whom}
          </Anchor>
        )}
      </Table.Td>
      <Table.Td>{userId === null ? 'a user' : 'a new password'}</Table.Td>
      <Table.Td>
        <Time at={createdAt} />
      </Table.Td>
      <Table.Td>
        <Time at={expiresAt} />
      </Table.Td>
      <Table.Td>
        {mayDelete && (
          <ConfirmButton
            noun={NOUN}
            label="Take back"
            of={whom}
            title="Take invitation back"
            name={whom}
            act={() => countersign.userInvitations.delete.mutate({ id })}
          >
            The link does nothing any more.
          </ConfirmButton>
        )}
      </Table.Td>
    </Table.Tr>
  );
}

const BLANK = { name: '', email: '', ttlSeconds: 7 * 86_400 };

/** Of a new user, or of one who is to set a new password. */
export function InviteUser({
  userId,
  onDone,
  onCancel,
}: {
  userId?: string;
  /** Told the link. */
  onDone: (link: string | null) => void;
  onCancel: () => void;
}) {
  const form = useForm({ initialValues: BLANK });
  const inviting = useChange(
    NOUN,
    ({ name, email, ttlSeconds }: typeof BLANK) =>
      countersign.users.invite.mutate({
        ttlSeconds,
        ...(userId !== undefined && { userId }),
        ...(name.trim() && { name: name.trim() }),
        ...(email.trim() && { email: email.trim() }),
      }),
    ({ link = null }) => onDone(link),
  );
  return (
    <DialogForm
      action={inviting}
      label="Make a link"
      onSubmit={() => inviting.mutate(form.values)}
      onCancel={onCancel}
    >
      {userId === undefined && (
        <>
          <TextInput label="Name" {...form.getInputProps('name')} autoComplete="off" data-autofocus />
          <TextInput
            label="E-mail address"
            description="Nothing is sent: the link is shown to you"
            {...form.getInputProps('email')}
            autoComplete="off"
          />
        </>
      )}
      <DurationInput
        label="Expires in"
        description="It works once"
        value={form.values.ttlSeconds}
        onChange={(seconds) => form.setFieldValue('ttlSeconds', seconds ?? BLANK.ttlSeconds)}
      />
    </DialogForm>
  );
}
