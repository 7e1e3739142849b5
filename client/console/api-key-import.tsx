/** Importing API keys from a CSV file: read here, hashed here, sent in batches, answered row by row. */
import {
  Alert,
  Anchor,
  Button,
  Code,
  FileInput,
  Group,
  NumberInput,
  Progress,
  Stack,
  Table,
  Text,
  TextInput,
} from '@mantine/core';
import { useRef, useState } from 'react';
import { Link } from 'react-router';
import { type ImportedRow, importCsv } from './api-key-csv.ts';
import { Failure } from './failure.tsx';

/** Rows that are shown; the file that can be saved has all. */
const SHOWN_MAX = 200;

interface Run {
  rows: readonly ImportedRow[];
  /** Of the file, from 0 to 1. */
  share: number;
  isRunning: boolean;
  error: unknown;
}

export default function ApiKeyImport() {
  const [file, setFile] = useState<File | null>(null);
  const [prefix, setPrefix] = useState('');
  const [length, setLength] = useState<number | ''>('');
  const [run, setRun] = useState<Run | null>(null);
  const stopping = useRef<AbortController | null>(null);

  async function start(chosen: File) {
    const stop = new AbortController();
    stopping.current = stop;
    const rows: ImportedRow[] = [];
    setRun({ rows, share: 0, isRunning: true, error: null });
    const shape = { ...(prefix !== '' && { prefix }), ...(length !== '' && { length }) };
    try {
      await importCsv(chosen, Object.keys(shape).length > 0 ? shape : null, stop.signal, (more, share) => {
        rows.push(...more);
        setRun({ rows: [...rows], share, isRunning: true, error: null });
      });
      setRun({ rows, share: 1, isRunning: false, error: null });
    } catch (error) {
      setRun((before) => ({
        rows,
        share: before?.share ?? 0,
        isRunning: false,
        error: stop.signal.aborted ? null : error,
      }));
    }
  }

  return (
    <Stack>
      <Text size="sm">
        A file in CSV whose first line names its columns: <Code>subject</Code>, <Code>name</Code>, and{' '}
        <Code>hash</Code> (SHA-256 of the value, in hex) or <Code>value</Code>, which is hashed here and never
        sent; and, if you like, <Code>id</Code>, <Code>description</Code>, <Code>scopes</Code> (with spaces
        between), <Code>claims</Code>, <Code>createdAt</Code>, <Code>createdBy</Code>, <Code>expiresAt</Code>,{' '}
        <Code>enabled</Code>, <Code>start</Code>, <Code>rateLimit</Code>. Imported again, a key is already
        there. Millions are imported by <Code>countersign import-keys</Code>.
      </Text>
      <FileInput
        label="File"
        placeholder="keys.csv"
        accept=".csv,text/csv"
        value={file}
        onChange={setFile}
        clearable
        clearButtonProps={{ 'aria-label': 'Take the file away' }}
      />
      <Group align="flex-start" grow>
        <TextInput
          label="Values begin with"
          description="Where they are not of our own shape"
          value={prefix}
          onChange={(event) => setPrefix(event.currentTarget.value)}
          autoComplete="off"
        />
        <NumberInput
          label="Values have as many characters"
          description="Where they do not begin alike"
          min={16}
          max={512}
          value={length}
          onChange={(entered) => setLength(entered === '' ? '' : Number(entered))}
        />
      </Group>
      <Group>
        <Button onClick={() => file && void start(file)} disabled={!file || run?.isRunning === true}>
          Import
        </Button>
        {run?.isRunning && (
          <Button variant="default" onClick={() => stopping.current?.abort()}>
            Stop
          </Button>
        )}
      </Group>
      {run && <Report run={run} name={file?.name ?? 'keys.csv'} />}
    </Stack>
  );
}

const countOf = (rows: readonly ImportedRow[], outcome: ImportedRow['outcome']) =>
  rows.filter((row) => row.outcome === outcome).length;

function Report({ run: { rows, share, isRunning, error }, name }: { run: Run; name: string }) {
  const refused = rows.filter(({ outcome }) => outcome === 'refused');
  const others = rows.filter(({ outcome }) => outcome !== 'refused');
  const shown = [...refused, ...others].slice(0, SHOWN_MAX);
  return (
    <Stack>
      <Progress.Root size="lg">
        <Progress.Section value={share * 100} aria-label="How much of the file is imported" />
      </Progress.Root>
      <Failure error={error} />
      <Alert
        title={isRunning ? 'Importing' : error ? 'It stopped; import the file again to go on' : 'Done'}
        color={error || refused.length > 0 ? 'red' : 'blue'}
        role="status"
      >
        {countOf(rows, 'imported').toLocaleString()} imported, {countOf(rows, 'exists').toLocaleString()}{' '}
        already there, {refused.length.toLocaleString()} refused
      </Alert>
      {!isRunning && rows.length > 0 && (
        <Group>
          <Anchor href={csvOf(rows)} download={name.replace(/(\.csv)?$/, '.results.csv')} size="sm">
            Save what became of each row
          </Anchor>
        </Group>
      )}
      {shown.length > 0 && (
        <Table.ScrollContainer minWidth={480}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Row</Table.Th>
                <Table.Th>Outcome</Table.Th>
                <Table.Th>Key, or what is wrong</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {shown.map((row) => (
                <Table.Tr key={row.row}>
                  <Table.Td>{row.row}</Table.Td>
                  <Table.Td>{row.outcome}</Table.Td>
                  <Table.Td>
                    {row.outcome === 'refused' ? (
                      row.message
                    ) : (
                      <Anchor component={Link} to={`/api-keys/${row.id}`} size="sm">
                        {row.id}
                      </Anchor>
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {rows.length > shown.length && (
        <Text size="sm" c="dimmed">
          Shown are {shown.length} of {rows.length.toLocaleString()}, those that were refused first
        </Text>
      )}
    </Stack>
  );
}

/** A spreadsheet takes what begins with one of these for a formula. */
const cellOf = (text: string) => `"${text.replace(/^[=+\-@]/, "'$&").replaceAll('"', '""')}"`;

function csvOf(rows: readonly ImportedRow[]): string {
  const lines = rows.map((row) =>
    [
      row.row,
      row.outcome,
      row.outcome === 'refused' ? '' : row.id,
      row.outcome === 'refused' ? row.message : '',
    ]
      .map((cell) => cellOf(String(cell)))
      .join(','),
  );
  return `data:text/csv;charset=utf-8,${encodeURIComponent(['row,outcome,id,message', ...lines].join('\r\n'))}`;
}
