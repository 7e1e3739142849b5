/** Signing in: by a one-time link, or by a secret key. */
import { Anchor, Button, Center, Code, Paper, PasswordInput, Stack, Text, Title } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { beginSession, endSession } from './countersign.ts';
import { Failure } from './failure.tsx';

/** The key under which the session is among the queries. */
export const SESSION = ['session'];

/** The value after `#link=`, which is never sent to a server; taken out of the address, so that it is in no history. */
function takeLink(): string | null {
  const link = new URLSearchParams(location.hash.slice(1)).get('link');
  if (link !== null) history.replaceState(null, '', location.pathname);
  return link;
}

/** That the page was opened with; while somebody is signed in too, for it may be another key's. */
export const LINK = takeLink();

/** `link` is tried at once; `onDone` is told that somebody is signed in. */
export function SignIn({ link = null, onDone }: { link?: string | null; onDone?: () => void }) {
  const queries = useQueryClient();
  const [secretKey, setSecretKey] = useState('');
  const signIn = useMutation({
    mutationFn: beginSession,
    onSuccess(session) {
      queries.setQueryData(SESSION, session);
      onDone?.();
    },
  });
  const isTaken = useRef(false);
  useEffect(() => {
    if (isTaken.current) return;
    isTaken.current = true;
    if (link !== null) signIn.mutate({ link });
  }, [link, signIn.mutate]);

  function submit(event: FormEvent) {
    event.preventDefault();
    signIn.mutate({ secretKey: secretKey.trim() });
    setSecretKey('');
  }

  return (
    <Center component="main" mih="100vh" p="md">
      <Paper withBorder p="xl" maw={440} w="100%">
        <form onSubmit={submit}>
          <Stack>
            <Title order={1} size="h2">
              Countersign console
            </Title>
            <Text size="sm">
              Open a one-time link, which <Code>countersign console</Code> prints, or sign in with a secret
              key.
            </Text>
            <PasswordInput
              label="Secret key"
              placeholder="sk_…"
              value={secretKey}
              onChange={(event) => setSecretKey(event.currentTarget.value)}
              autoComplete="off"
              spellCheck={false}
            />
            <Failure error={signIn.error} />
            <Button type="submit" disabled={secretKey.trim() === ''} loading={signIn.isPending}>
              Sign in
            </Button>
            <Text size="sm">
              The <Anchor href="/docs">API reference</Anchor> needs no signing in.
            </Text>
          </Stack>
        </form>
      </Paper>
    </Center>
  );
}

/** Ends the session at the server, and forgets all that was read in it. */
export function useSignOut() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: endSession,
    onSuccess() {
      queries.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== SESSION[0] });
      queries.setQueryData(SESSION, null);
    },
  });
}
