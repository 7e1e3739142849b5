import { Alert, Button, Code, Group, Text } from '@mantine/core';
import { failureOf } from './countersign.ts';

/** What the server said, with its code and the id by which the log is searched. */
export function Failure({ error, onRetry }: { error: unknown; onRetry?: () => unknown }) {
  if (!error) return null;
  const { code, message, requestId } = failureOf(error);
  return (
    <Alert color="red" title={message} role="alert" my="sm">
      <Group gap="xs">
        <Code>{code}</Code>
        {requestId && <Text size="xs">{requestId}</Text>}
        {onRetry && (
          <Button size="xs" variant="default" onClick={() => onRetry()}>
            Try again
          </Button>
        )}
      </Group>
    </Alert>
  );
}
