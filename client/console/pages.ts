/** The pages, in the order of the navigation. Each is loaded when it is first opened. */
import { type ComponentType, type LazyExoticComponent, lazy } from 'react';
import type { Session } from './countersign.ts';

export interface Page {
  /** Below `/console`. */
  path: string;
  title: string;
  roles: readonly Session['role'][];
  component: LazyExoticComponent<ComponentType>;
}

const READERS: Page['roles'] = ['admin', 'read'];

export const PAGES: readonly Page[] = [
  {
    path: '/overview',
    title: 'Overview',
    roles: READERS,
    component: lazy(() => import('./overview.tsx')),
  },
  {
    path: '/machines',
    title: 'Machines',
    roles: READERS,
    component: lazy(() => import('./machines.tsx')),
  },
  {
    path: '/api-keys',
    title: 'API keys',
    roles: ['admin', 'issuer', 'read'],
    component: lazy(() => import('./api-keys.tsx')),
  },
  {
    path: '/oauth-applications',
    title: 'OAuth applications',
    roles: READERS,
    component: lazy(() => import('./oauth-applications.tsx')),
  },
  {
    path: '/oauth-grants',
    title: 'OAuth grants',
    roles: READERS,
    component: lazy(() => import('./oauth-grants.tsx')),
  },
  {
    path: '/users',
    title: 'Users',
    roles: READERS,
    component: lazy(() => import('./users.tsx')),
  },
  {
    path: '/webhooks',
    title: 'Webhooks',
    roles: READERS,
    component: lazy(() => import('./webhooks.tsx')),
  },
  {
    path: '/events',
    title: 'Events',
    roles: READERS,
    component: lazy(() => import('./events.tsx')),
  },
  {
    path: '/try-it',
    title: 'Try it',
    roles: ['admin', 'verify'],
    component: lazy(() => import('./try-it.tsx')),
  },
  {
    path: '/signing-keys',
    title: 'Signing keys',
    roles: READERS,
    component: lazy(() => import('./signing-keys.tsx')),
  },
  {
    path: '/secret-keys',
    title: 'Secret keys',
    roles: READERS,
    component: lazy(() => import('./secret-keys.tsx')),
  },
  {
    path: '/sessions',
    title: 'Sessions',
    roles: READERS,
    component: lazy(() => import('./operator-sessions.tsx')),
  },
  {
    path: '/jobs',
    title: 'Jobs',
    roles: READERS,
    component: lazy(() => import('./jobs.tsx')),
  },
];
