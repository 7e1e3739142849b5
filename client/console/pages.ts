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
];
