/** Who is signed in sees the pages of their role; who is not, the way in. */
import { AppShell, Burger, Button, Center, Group, Loader, NavLink, Text, Title } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { Suspense, useState } from 'react';
import { Navigate, Route, Link as RouterLink, Routes, useLocation } from 'react-router';
import { ColorScheme } from './color-scheme.tsx';
import { readSession, type Session } from './countersign.ts';
import { Failure } from './failure.tsx';
import { PAGES, type Page } from './pages.ts';
import { LINK, SESSION, SignIn, useSignOut } from './session.tsx';

export function App() {
  const session = useQuery({ queryKey: SESSION, queryFn: readSession, staleTime: Number.POSITIVE_INFINITY });
  const [link, setLink] = useState(LINK);
  if (link !== null) return <SignIn link={link} onDone={() => setLink(null)} />;
  if (session.isPending) return <Waiting />;
  if (session.isError) return <Failure error={session.error} onRetry={session.refetch} />;
  return session.data ? <Shell session={session.data} /> : <SignIn />;
}

function Shell({ session }: { session: Session }) {
  const [isOpen, { toggle, close }] = useDisclosure();
  const signOut = useSignOut();
  const pages = PAGES.filter(({ roles }) => roles.includes(session.role));
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 220, breakpoint: 'sm', collapsed: { mobile: !isOpen } }}
      padding="md"
    >
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={isOpen} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Navigation" />
            <Text fw={700}>Countersign</Text>
          </Group>
          <Group gap="xs" wrap="nowrap">
            <Text size="sm" visibleFrom="xs">
              {session.name} ({session.role})
            </Text>
            <ColorScheme />
            <Button variant="default" size="xs" onClick={() => signOut.mutate()} loading={signOut.isPending}>
              Sign out
            </Button>
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs">
        <Navigation pages={pages} onChoice={close} />
      </AppShell.Navbar>
      <AppShell.Main>
        <Failure error={signOut.error} />
        <Suspense fallback={<Waiting />}>
          <Routes>
            {pages.map(({ path, title, component: Content }) => (
              <Route
                key={path}
                path={`${path}/*`}
                element={
                  <>
                    <Title order={1} size="h2" mb="md">
                      {title}
                    </Title>
                    <Content />
                  </>
                }
              />
            ))}
            <Route path="*" element={<Elsewhere first={pages[0]} />} />
          </Routes>
        </Suspense>
      </AppShell.Main>
    </AppShell>
  );
}

function Navigation({ pages, onChoice }: { pages: readonly Page[]; onChoice: () => void }) {
  const { pathname } = useLocation();
  return pages.map(({ path, title }) => (
    <NavLink
      key={path}
      component={RouterLink}
      to={path}
      label={title}
      active={pathname.startsWith(path)}
      onClick={onChoice}
    />
  ));
}

function Elsewhere({ first }: { first: Page | undefined }) {
  if (first) return <Navigate to={first.path} replace />;
  return <Text>A secret key of this role has nothing to see here. Sign in with an admin or read key.</Text>;
}

function Waiting() {
  return (
    <Center h="50vh">
      <Loader aria-label="Loading" />
    </Center>
  );
}
