/** Grants: which user let which application act for them, and taking that back, one or all. */
import { Anchor, Badge, Code, Group, Stack, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Link, useSearchParams } from 'react-router';
import { countersign, type Outputs } from './countersign.ts';
import { ConfirmButton } from './dialog-buttons.tsx';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { Pages, usePaging } from './paging.tsx';
import { useMayCall } from './permission.ts';
import { Time } from './time.tsx';

type OauthGrant = Outputs['oauthGrants']['list']['data'][number];

/** What a row tells that the filter does not. */
type Shows = 'subject' | 'application' | 'both';

interface Filter {
  subject?: string;
  applicationId?: string;
}

export default function OauthGrants() {
  const [params, setParams] = useSearchParams();
  const [typedSubject, setTypedSubject] = useState(params.get('subject') ?? '');
  const [typedApplication, setTypedApplication] = useState(params.get('application') ?? '');
  const [subject] = useDebouncedValue(typedSubject.trim(), 200);
  const [applicationId] = useDebouncedValue(typedApplication.trim(), 200);
  // In the address, so that a link leads to the grants of a user.
  useEffect(() => {
    setParams(
      { ...(subject && { subject }), ...(applicationId && { application: applicationId }) },
      { replace: true },
    );
  }, [subject, applicationId, setParams]);
  const filter = { ...(subject && { subject }), ...(applicationId && { applicationId }) };
  return (
    <Stack>
      <Group align="flex-end">
        <TextInput
          label="User"
          placeholder="user_42"
          value={typedSubject}
          onChange={(event) => setTypedSubject(event.currentTarget.value)}
          autoComplete="off"
          flex={1}
          miw={180}
        />
        <TextInput
          label="Application"
          placeholder="oauthapp_…"
          value={typedApplication}
          onChange={(event) => setTypedApplication(event.currentTarget.value)}
          autoComplete="off"
          flex={1}
          miw={180}
        />
      </Group>
      <OauthGrantList filter={filter} shows="both" />
    </Stack>
  );
}

/** Of a user, of an application, of both, or all. */
export function OauthGrantList({ filter, shows }: { filter: Filter; shows: Shows }) {
  const paging = usePaging(JSON.stringify(filter));
  const input = { ...filter, ...(paging.cursor && { cursor: paging.cursor }) };
  const grants = useQuery({
    queryKey: ['oauthGrants', 'list', input],
    queryFn: () => countersign.oauthGrants.list.query(input),
    placeholderData: keepPreviousData,
  });
  const data = grants.data?.data ?? [];
  if (grants.isError) return <Failure error={grants.error} onRetry={grants.refetch} />;
  if (!grants.data) return null;
  return (
    <Stack>
      {filter.subject !== undefined && data.length > 0 && (
        <Withdrawal subject={filter.subject} applicationId={filter.applicationId} />
      )}
      {data.length === 0 && grants.data.nextCursor === null ? (
        <Nothing isFiltered={shows === 'both' && Object.keys(filter).length > 0} />
      ) : (
        <Table.ScrollContainer minWidth={720}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                {shows !== 'application' && <Table.Th>User</Table.Th>}
                {shows !== 'subject' && <Table.Th>Application</Table.Th>}
                <Table.Th>Scopes</Table.Th>
                <Table.Th>Allowed</Table.Th>
                <Table.Th>Last used</Table.Th>
                <Table.Th>State</Table.Th>
                <Table.Th>End</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.map((grant) => (
                <Row key={grant.id} grant={grant} shows={shows} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <Pages paging={paging} nextCursor={grants.data.nextCursor} isLoading={grants.isPlaceholderData} />
    </Stack>
  );
}

function Nothing({ isFiltered }: { isFiltered: boolean }) {
  return isFiltered ? (
    <Empty title="No grant is like this">Look for the whole id of a user or of an application.</Empty>
  ) : (
    <Empty title="Nobody has allowed it anything">
      A grant is made when a user allows an application to act for them.
    </Empty>
  );
}

/** All that one user allowed one application, or any. */
function Withdrawal({ subject, applicationId }: { subject: string; applicationId: string | undefined }) {
  const mayCall = useMayCall();
  if (!mayCall(applicationId === undefined ? 'oauthGrants.revokeAll' : 'oauthGrants.withdraw')) return null;
  return (
    <Group>
      <ConfirmButton
        noun="oauthGrants"
        label="Withdraw all of them"
        title="Withdraw all"
        name={subject}
        act={() =>
          applicationId === undefined
            ? countersign.oauthGrants.revokeAll.mutate({ subject })
            : countersign.oauthGrants.withdraw.mutate({ subject, applicationId })
        }
      >
        Every token that hangs on them is refused from now on, and{' '}
        {applicationId === undefined ? 'each application has' : 'the application has'} to ask this user again.
      </ConfirmButton>
    </Group>
  );
}

function Row({ grant, shows }: { grant: OauthGrant; shows: Shows }) {
  const mayCall = useMayCall();
  const { id, subject, applicationId, applicationName, organizationId, scopes, state } = grant;
  return (
    <Table.Tr>
      {shows !== 'application' && (
        <Table.Td style={{ overflowWrap: 'anywhere' }}>
          <Anchor component={Link} to={`/oauth-grants?subject=${encodeURIComponent(subject)}`} size="sm">
            {subject}
          </Anchor>
          {organizationId && (
            <Text size="xs" c="dimmed">
              for {organizationId}
            </Text>
          )}
        </Table.Td>
      )}
      {shows !== 'subject' && (
        <Table.Td>
          {applicationName === null ? (
            <Code>{applicationId}</Code>
          ) : (
            <Anchor component={Link} to={`/oauth-applications/${applicationId}`} size="sm">
              {applicationName}
            </Anchor>
          )}
        </Table.Td>
      )}
      <Table.Td style={{ overflowWrap: 'anywhere' }}>{scopes.join(' ') || 'none'}</Table.Td>
      <Table.Td>
        <Time at={grant.createdAt} />
      </Table.Td>
      <Table.Td>
        <Time at={grant.lastUsedAt} />
      </Table.Td>
      <Table.Td>
        <Badge variant="default">{state}</Badge>{' '}
        {grant.revocationReason && (
          <Text span size="xs">
            {grant.revocationReason.replaceAll('_', ' ')}
          </Text>
        )}
      </Table.Td>
      <Table.Td>
        <Group gap="xs" wrap="nowrap">
          {mayCall('oauthGrants.revoke') && state === 'live' && (
            <ConfirmButton
              noun="oauthGrants"
              label="Revoke"
              of={id}
              title="Revoke grant"
              name={subject}
              act={() => countersign.oauthGrants.revoke.mutate({ id })}
            >
              Every token that hangs on it is refused from now on. Where this user’s consent is remembered,
              the application is given another grant without asking: withdraw all of theirs where it must not.
            </ConfirmButton>
          )}
          {mayCall('oauthGrants.withdraw') && applicationName !== null && (
            <ConfirmButton
              noun="oauthGrants"
              label="Withdraw"
              of={id}
              title="Withdraw all"
              name={subject}
              act={() => countersign.oauthGrants.withdraw.mutate({ subject, applicationId })}
            >
              All that this user allowed {applicationName} ends with every token of it, and the application
              has to ask them again.
            </ConfirmButton>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}
