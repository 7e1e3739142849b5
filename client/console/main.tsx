import '@mantine/core/styles.css';
import '@mantine/notifications/styles.css';
import { MantineProvider } from '@mantine/core';
import { Notifications } from '@mantine/notifications';
import { QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router';
import { App } from './app.tsx';
import { codeOf } from './countersign.ts';
import { SESSION } from './session.tsx';
import { cssVariables, theme } from './theme.ts';

const STALE_MS = 5_000;

const queries: QueryClient = new QueryClient({
  defaultOptions: {
    queries: { staleTime: STALE_MS, retry: (failures, error) => failures < 2 && codeOf(error) === 'network' },
  },
  queryCache: new QueryCache({
    // Its key was revoked, or it grew too old: whoever sits there signs in again.
    onError: (error) => codeOf(error) === 'unauthenticated' && queries.setQueryData(SESSION, null),
  }),
});

const nonce = document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? '';

const root = document.getElementById('console');
if (!root) throw new Error('The page has no place for the console');
createRoot(root).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      cssVariablesResolver={cssVariables}
      defaultColorScheme="auto"
      getStyleNonce={() => nonce}
    >
      <Notifications position="top-right" />
      <QueryClientProvider client={queries}>
        <BrowserRouter basename="/console">
          <App />
        </BrowserRouter>
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
