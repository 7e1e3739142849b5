/** One OAuth application: what it is and may, its secret and logo, who allowed it, and the code that uses it. */
import { Anchor, Code, Group, Stack, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from 'react-router';
import { countersign } from './countersign.ts';
import { ConfirmButton, DialogButton, EnableButton, SecretButton } from './dialog-buttons.tsx';
import { sayDuration } from './duration.tsx';
import { Facts } from './facts.tsx';
import { Failure } from './failure.tsx';
import { OauthApplicationCode } from './oauth-application-code.tsx';
import { EditOauthApplication, GRANT_TYPES } from './oauth-application-form.tsx';
import { OauthApplicationLogo } from './oauth-application-logo.tsx';
import { type OauthApplication, OauthApplicationState, SOURCES } from './oauth-application-state.tsx';
import { OauthGrantList } from './oauth-grants.tsx';
import { useMayCall } from './permission.ts';
import { Overlap, RotateForm, useOverlaps } from './rotation.tsx';
import { Time } from './time.tsx';

const NOUN = 'oauthApplications';

export function OauthApplicationDetails() {
  const { id = '' } = useParams();
  const application = useQuery({
    queryKey: [NOUN, 'one', id],
    queryFn: () => countersign.oauthApplications.get.query({ id }),
  });
  return (
    <Stack>
      <Anchor component={Link} to="/oauth-applications" size="sm">
        All applications
      </Anchor>
      <Failure error={application.error} onRetry={application.refetch} />
      {application.data && <Details application={application.data} />}
    </Stack>
  );
}

function Details({ application }: { application: OauthApplication }) {
  const mayCall = useMayCall();
  const overlap = useOverlaps(NOUN, application.id).get(application.id);
  return (
    <Stack gap="xl">
      <Stack>
        <Group justify="space-between">
          <Group>
            <Title order={2} size="h3">
              {application.name}
            </Title>
            <OauthApplicationState application={application} />
          </Group>
          <Actions application={application} />
        </Group>
        <Overlap
          noun={NOUN}
          id={application.id}
          endsAt={overlap}
          cancel={
            mayCall('oauthApplications.cancelRotation')
              ? (input) => countersign.oauthApplications.cancelRotation.mutate(input)
              : undefined
          }
          complete={
            mayCall('oauthApplications.completeRotation')
              ? (input) => countersign.oauthApplications.completeRotation.mutate(input)
              : undefined
          }
        />
        <OauthApplicationFacts application={application} />
      </Stack>
      <OauthApplicationLogo application={application} />
      <Stack>
        <Title order={3} size="h4">
          Users who allowed it
        </Title>
        <OauthGrantList filter={{ applicationId: application.id }} shows="subject" />
      </Stack>
      <OauthApplicationCode application={application} />
    </Stack>
  );
}

function OauthApplicationFacts({ application }: { application: OauthApplication }) {
  const { clientUri, redirectUris, grantTypes, scopes, defaultScopes, audiences } = application;
  return (
    <Facts
      facts={{
        'Client id': <Code>{application.clientId}</Code>,
        Id: <Code>{application.id}</Code>,
        From: SOURCES[application.source],
        Description: application.description ?? '–',
        // Whoever registers itself names what it likes: it is no link to follow from here.
        'Home page': clientUri ?? '–',
        'Redirect URIs':
          redirectUris.length === 0 ? 'none' : redirectUris.map((uri) => <div key={uri}>{uri}</div>),
        'Gets tokens by': grantTypes.map((each) => (
          <div key={each}>{each in GRANT_TYPES ? each.replaceAll('_', ' ') : each}</div>
        )),
        Scopes:
          scopes.join(' ') || (application.source === 'administrator' ? 'none' : 'those that are advertised'),
        'Where it asks for none': defaultScopes?.join(' ') ?? 'those of the installation',
        Resources: audiences?.join(', ') ?? 'those of its scopes',
        Consent: application.consentRequired ? 'users are asked' : 'users are not asked',
        PKCE: application.pkceRequired ? 'required' : 'not required',
        'Access tokens': `${application.accessTokenFormat === 'jwt' ? 'JWT' : 'opaque'}, ${sayDuration(application.accessTokenTtlSeconds)}`,
        'Refresh tokens': `${sayDuration(application.refreshTokenIdleSeconds)} unused, ${application.refreshTokenMaxSeconds === null ? 'however often refreshed' : `${sayDuration(application.refreshTokenMaxSeconds)} in all`}`,
        Codes: sayDuration(application.codeTtlSeconds),
        ...(application.tokensRevokedAt !== null && {
          'All tokens revoked': <Time at={application.tokensRevokedAt} />,
        }),
        ...(application.unusedUntil !== null && {
          'Goes unless it is used': <Time at={application.unusedUntil} />,
        }),
        'Last used': <Time at={application.lastUsedAt} />,
        Created: <Time at={application.createdAt} />,
      }}
    />
  );
}

function Actions({ application }: { application: OauthApplication }) {
  const mayCall = useMayCall();
  const navigate = useNavigate();
  const { id, name, enabled, public: isPublic } = application;
  return (
    <Group gap="xs">
      {mayCall('oauthApplications.update') && (
        <DialogButton size="xs" variant="default" label="Edit" title="Edit application">
          {(close) => <EditOauthApplication application={application} onDone={close} />}
        </DialogButton>
      )}
      {mayCall('oauthApplications.rotateSecret') && !isPublic && (
        <SecretButton
          size="xs"
          variant="default"
          label="Rotate secret"
          title="Rotate secret"
          shownAs="The new client secret"
        >
          {(done, close) => (
            <RotateForm
              noun={NOUN}
              id={id}
              nameToType={name}
              rotate={(input) => countersign.oauthApplications.rotateSecret.mutate(input)}
              onDone={done}
              onCancel={close}
            />
          )}
        </SecretButton>
      )}
      {mayCall('oauthApplications.disable') && (
        <EnableButton noun={NOUN} id={id} enabled={enabled} calls={countersign.oauthApplications} />
      )}
      {mayCall('oauthApplications.revokeTokens') && (
        <ConfirmButton
          noun={NOUN}
          label="Revoke all tokens"
          title="Revoke all tokens"
          name={name}
          act={() => countersign.oauthApplications.revokeTokens.mutate({ id })}
        >
          Everything it was ever given is refused from now on: its users are asked to sign in again. Its
          secret stays as it is, and gets new tokens.
        </ConfirmButton>
      )}
      {mayCall('oauthApplications.delete') && (
        <ConfirmButton
          noun={NOUN}
          label="Delete"
          title="Delete application"
          name={name}
          act={() => countersign.oauthApplications.delete.mutate({ id })}
          onDone={() => navigate('/oauth-applications')}
        >
          Its secrets, what users allowed it, and all its tokens go with it: whatever runs as it is refused
          from then on.
        </ConfirmButton>
      )}
    </Group>
  );
}
