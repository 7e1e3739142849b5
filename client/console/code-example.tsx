import { Box, Button, Code, CopyButton, Text } from '@mantine/core';

/** Code to be copied, filled in for whoever reads it. */
export function CodeExample({ title, code }: { title: string; code: string }) {
  return (
    <Box>
      <Text size="sm" mb={4}>
        {title}
      </Text>
      <Code block tabIndex={0}>
        {code}
      </Code>
      <CopyButton value={code}>
        {({ copied, copy }) => (
          <Button size="xs" variant="default" mt={4} onClick={copy}>
            {copied ? 'Copied' : 'Copy'}
          </Button>
        )}
      </CopyButton>
    </Box>
  );
}
