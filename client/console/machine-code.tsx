/** “Show me the code”: what a machine does to call another, and what that one does, filled in. */
import { NativeSelect, Stack, Tabs, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { CodeExample } from './code-example.tsx';
import { countersign } from './countersign.ts';
import { type Call, LANGUAGES } from './machine-examples.ts';
import type { Machine } from './machine-state.tsx';

const CALLEES_MAX = 50;

export function MachineCode({ machine }: { machine: Machine }) {
  const edges = useQuery({
    queryKey: ['machines', 'scopes', { fromMachineId: machine.id }],
    queryFn: () => countersign.machineScopes.list.query({ fromMachineId: machine.id, limit: CALLEES_MAX }),
  });
  const [chosen, setChosen] = useState<string | null>(null);
  const callees = edges.data?.data ?? [];
  const edge = callees.find(({ toMachineId }) => toMachineId === chosen) ?? callees[0];
  return (
    <Stack>
      <Title order={3} size="h4">
        Show me the code
      </Title>
      {edge === undefined ? (
        <Text size="sm">Grant {machine.name} to call another machine, and the code for it is here.</Text>
      ) : (
        <>
          {callees.length > 1 && (
            <NativeSelect
              label="Calling"
              value={edge.toMachineId}
              onChange={(event) => setChosen(event.currentTarget.value)}
              data={callees.map(({ toMachineId }) => toMachineId)}
              maw={420}
            />
          )}
          <Examples
            call={{
              url: location.origin,
              machineName: machine.name,
              audience: edge.toMachineId,
              scopes: edge.scopes,
            }}
          />
        </>
      )}
    </Stack>
  );
}

function Examples({ call }: { call: Call }) {
  return (
    <Tabs defaultValue={LANGUAGES[0].name} keepMounted={false}>
      <Tabs.List mb="sm">
        {LANGUAGES.map(({ name }) => (
          <Tabs.Tab key={name} value={name}>
            {name}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {LANGUAGES.map(({ name, calling, called }) => (
        <Tabs.Panel key={name} value={name}>
          <Stack>
            <CodeExample title={`${call.machineName} gets a token, and calls`} code={calling(call)} />
            <CodeExample title="Who is called asks whether it is valid" code={called(call)} />
          </Stack>
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
