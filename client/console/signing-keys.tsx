/** The keys that sign JWTs: which signs now, which is published before it does, which only verify still. */
import { Badge, Button, Code, Group, Stack, Table, Text, VisuallyHidden } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Confirm } from './confirm.tsx';
import { countersign, type Outputs } from './countersign.ts';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { SigningKeyTimeline } from './signing-key-timeline.tsx';
import { Time } from './time.tsx';

type SigningKey = Outputs['signingKeys']['list'][number];

const KEYS = ['signingKeys'];

const MEANING: Record<SigningKey['state'], string> = {
  upcoming: 'published, signs soon',
  active: 'signs now',
  retiring: 'verifies until its last token has expired',
  retired: 'verifies nothing any more',
};

export default function SigningKeys() {
  const keys = useQuery({ queryKey: KEYS, queryFn: () => countersign.signingKeys.list.query() });
  const [retired, setRetired] = useState<SigningKey | null>(null);
  if (keys.isError) return <Failure error={keys.error} onRetry={keys.refetch} />;
  if (!keys.data) return null;
  return (
    <Stack>
      <Text size="sm">
        Keys rotate by themselves: the next is published a day before it signs. Retire one at once only if
        others may have its private half.
      </Text>
      <Group>
        <Publish />
      </Group>
      {keys.data.length === 0 ? (
        <Empty title="No signing keys">The first is made when the server starts.</Empty>
      ) : (
        <>
          <SigningKeyTimeline keys={keys.data} />
          <Table.ScrollContainer minWidth={640}>
            <Table>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Key</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Published</Table.Th>
                  <Table.Th>Signs since</Table.Th>
                  <Table.Th>Retired</Table.Th>
                  <Table.Th>
                    <VisuallyHidden>Actions</VisuallyHidden>
                  </Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {keys.data.map((key) => (
                  <Row key={key.kid} signingKey={key} onRetire={() => setRetired(key)} />
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </>
      )}
      <EmergencyRetirement signingKey={retired} onClose={() => setRetired(null)} />
    </Stack>
  );
}

function Row({ signingKey, onRetire }: { signingKey: SigningKey; onRetire: () => void }) {
  const { kid, alg, state, createdAt, activatedAt, retiredAt } = signingKey;
  return (
    <Table.Tr>
      <Table.Td>
        <Code>{kid}</Code> {alg}
      </Table.Td>
      <Table.Td>
        <Badge variant="default">{state}</Badge> <Text size="xs">{MEANING[state]}</Text>
      </Table.Td>
      <Table.Td>
        <Time at={createdAt} />
      </Table.Td>
      <Table.Td>
        <Time at={activatedAt} never="not yet" />
      </Table.Td>
      <Table.Td>
        <Time at={retiredAt} never="–" />
      </Table.Td>
      <Table.Td>
        <Group gap="xs" wrap="nowrap" justify="flex-end">
          {state === 'upcoming' && <Activate kid={kid} />}
          {state !== 'retired' && (
            <Button size="xs" color="red" variant="outline" onClick={onRetire}>
              Retire at once
            </Button>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

function Publish() {
  const queries = useQueryClient();
  const publish = useMutation({
    mutationFn: () => countersign.signingKeys.create.mutate({}),
    onSuccess: () => queries.invalidateQueries({ queryKey: KEYS }),
  });
  return (
    <>
      <Button onClick={() => publish.mutate()} loading={publish.isPending}>
        Publish the next key
      </Button>
      <Failure error={publish.error} />
    </>
  );
}

function Activate({ kid }: { kid: string }) {
  const queries = useQueryClient();
  const activate = useMutation({
    mutationFn: () => countersign.signingKeys.activate.mutate({ kid }),
    onSuccess: () => queries.invalidateQueries({ queryKey: KEYS }),
  });
  return (
    <>
      <Button size="xs" variant="default" onClick={() => activate.mutate()} loading={activate.isPending}>
        Rotate now
      </Button>
      <Failure error={activate.error} />
    </>
  );
}

function EmergencyRetirement({
  signingKey,
  onClose,
}: {
  signingKey: SigningKey | null;
  onClose: () => void;
}) {
  const queries = useQueryClient();
  const kid = signingKey?.kid ?? '';
  const retire = useMutation({
    mutationFn: () => countersign.signingKeys.emergencyRetire.mutate({ kid }),
    async onSuccess() {
      await queries.invalidateQueries({ queryKey: KEYS });
      onClose();
    },
  });
  return (
    <Confirm
      isOpen={signingKey !== null}
      onClose={onClose}
      title="Retire at once"
      name={kid}
      action={{ ...retire, mutate: () => retire.mutate() }}
    >
      No token that it signed verifies any more, whenever it expires.
    </Confirm>
  );
}
