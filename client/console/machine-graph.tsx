/** Who may call whom, as a graph. What it shows is in a table too: “Who may call whom”. */
import '@xyflow/react/dist/base.css';
import './machine-graph.css';
import { Anchor, Group, Select, Stack, Text, useComputedColorScheme } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import {
  Controls,
  type Edge,
  Handle,
  MarkerType,
  type Node,
  type NodeProps,
  Position,
  ReactFlow,
} from '@xyflow/react';
import { useMemo, useState } from 'react';
import { Link } from 'react-router';
import { countersign } from './countersign.ts';
import { Empty } from './empty.tsx';
import { Failure } from './failure.tsx';
import { layOut, NODE } from './machine-layout.ts';
import type { MachineScope } from './machine-scopes.tsx';
import type { Machine } from './machine-state.tsx';

/** More than anybody sees at once; the table has them all. */
const MACHINES_MAX = 1_000;
const EDGES_MAX = 3_000;
const PAGE_SIZE = 500;

/** Names can be read, and are large enough to be touched (WCAG 2.2, 2.5.8); who wants to see more zooms out. */
const ZOOM_AT_FIRST_MIN = 0.7;
const ZOOM_MIN = 0.05;

interface Network {
  machines: Machine[];
  edges: MachineScope[];
  /** Whether there are more than were read. */
  isCut: boolean;
}

type MachineNode = Node<{ machine: Machine }, 'machine'>;

export default function MachineGraph() {
  const network = useQuery({ queryKey: ['machines', 'graph'], queryFn: readNetwork });
  const [around, setAround] = useState<string | null>(null);
  if (network.isError) return <Failure error={network.error} onRetry={network.refetch} />;
  if (!network.data) return null;
  const { machines, edges, isCut } = network.data;
  if (machines.length === 0)
    return <Empty title="No machines yet">Create two, and grant one to call the other.</Empty>;
  return (
    <Stack>
      <Group align="flex-end">
        <Select
          label="Only around"
          placeholder="All machines"
          searchable
          clearable
          clearButtonProps={{ 'aria-label': 'Show all machines' }}
          value={around}
          onChange={setAround}
          data={machines.map(({ id, name }) => ({ value: id, label: name }))}
          flex={1}
          maw={320}
        />
        <Anchor component={Link} to="/machines/scopes" size="sm" pb={8}>
          The same as a table
        </Anchor>
      </Group>
      {isCut && (
        <Text size="sm">
          There are more than {MACHINES_MAX.toLocaleString()} machines or {EDGES_MAX.toLocaleString()} lines
          between them; the table has all.
        </Text>
      )}
      <Graph machines={machines} edges={edges} around={around} />
    </Stack>
  );
}

/** All machines and machine scopes, up to what is shown. */
async function readNetwork(): Promise<Network> {
  const [machines, edges] = await Promise.all([
    readAll(MACHINES_MAX, (page) => countersign.machines.list.query(page)),
    readAll(EDGES_MAX, (page) => countersign.machineScopes.list.query(page)),
  ]);
  return { machines: machines.data, edges: edges.data, isCut: machines.isCut || edges.isCut };
}

async function readAll<T>(
  max: number,
  read: (page: { limit: number; cursor?: string }) => Promise<{ data: T[]; nextCursor: string | null }>,
): Promise<{ data: T[]; isCut: boolean }> {
  const data: T[] = [];
  let cursor: string | null = null;
  do {
    const page = await read({ limit: PAGE_SIZE, ...(cursor !== null && { cursor }) });
    data.push(...page.data);
    cursor = page.nextCursor;
  } while (cursor !== null && data.length < max);
  return { data, isCut: cursor !== null };
}

const NODE_TYPES = { machine: MachineBox };

function Graph({
  machines,
  edges,
  around,
}: {
  machines: readonly Machine[];
  edges: readonly MachineScope[];
  around: string | null;
}) {
  const colorMode = useComputedColorScheme();
  const drawn = useMemo(() => draw(machines, edges, around), [machines, edges, around]);
  return (
    <section className="machine-graph" aria-label="Graph of who may call whom">
      <ReactFlow
        // Another selection is another picture, seen as a whole.
        key={around}
        nodes={drawn.nodes}
        edges={drawn.edges}
        nodeTypes={NODE_TYPES}
        colorMode={colorMode}
        fitView
        fitViewOptions={{ minZoom: ZOOM_AT_FIRST_MIN }}
        minZoom={ZOOM_MIN}
        onlyRenderVisibleElements
        nodesDraggable={false}
        nodesConnectable={false}
        nodesFocusable={false}
        edgesFocusable={false}
        elementsSelectable={false}
        proOptions={{ hideAttribution: true }}
      >
        <Controls showInteractive={false} />
      </ReactFlow>
    </section>
  );
}

function draw(machines: readonly Machine[], edges: readonly MachineScope[], around: string | null) {
  const touching = (edge: MachineScope) =>
    around === null || edge.fromMachineId === around || edge.toMachineId === around;
  const shownEdges = edges.filter(touching);
  const ends = new Set(shownEdges.flatMap(({ fromMachineId, toMachineId }) => [fromMachineId, toMachineId]));
  const shown = machines.filter(({ id }) => around === null || id === around || ends.has(id));
  const places = layOut(
    shown.map(({ id }) => id),
    shownEdges,
  );
  return {
    nodes: shown.map(
      (machine): MachineNode => ({
        id: machine.id,
        type: 'machine',
        position: places.get(machine.id) ?? { x: 0, y: 0 },
        ...NODE,
        data: { machine },
      }),
    ),
    edges: shownEdges.map(
      ({ fromMachineId, toMachineId }): Edge => ({
        id: `${fromMachineId} ${toMachineId}`,
        source: fromMachineId,
        target: toMachineId,
        markerEnd: { type: MarkerType.ArrowClosed },
      }),
    ),
  };
}

function MachineBox({ data: { machine } }: NodeProps<MachineNode>) {
  const { id, name, enabled } = machine;
  return (
    <div className="machine-node" data-disabled={!enabled || undefined}>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <Anchor component={Link} to={`/machines/${id}`} size="sm" truncate className="machine-node-name">
        {name}
      </Anchor>
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
}
