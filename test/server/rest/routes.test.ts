import { describe, expect, it } from 'vitest';
import { ACCESS } from '../../../server/access.ts';
import { findPath, ROUTES } from '../../../server/rest/routes.ts';

/** Procedures that no route is for, and why. */
const WITHOUT_ROUTE: Record<string, string> = {};

describe('the table of routes', () => {
  it('has a route for every procedure, but for those with a reason', () => {
    const served = new Set<string | null>(ROUTES.map(({ access }) => access));
    const missing = Object.keys(ACCESS).filter((procedure) => !served.has(procedure));
    expect(missing).toEqual(Object.keys(WITHOUT_ROUTE));
  });

  it('has one row for each method at a path', () => {
    const places = ROUTES.map(({ method, path }) => `${method} ${path}`);
    expect(places.filter((place, index) => places.indexOf(place) !== index)).toEqual([]);
  });

  it.each(ROUTES)('$method $path names in its path only fields of its input', ({ path, input }) => {
    const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    expect(Object.keys(input.schema().properties ?? {})).toEqual(expect.arrayContaining(names));
  });
});

describe('findPath()', () => {
  it('finds a path with the version and without', () => {
    for (const path of ['/v1/machines/mch_1/scopes/mch_2', '/machines/mch_1/scopes/mch_2'])
      expect(findPath(path)).toMatchObject({
        path: '/v1/machines/{id}/scopes/{other_id}',
        params: { id: 'mch_1', other_id: 'mch_2' },
      });
  });

  it('prefers what is spelled out to a name', () => {
    expect(findPath('/v1/machines/me/secret_key/rotate')?.path).toBe('/v1/machines/me/secret_key/rotate');
    expect(findPath('/v1/machines/mch_1/secret_key/rotate')?.path).toBe(
      '/v1/machines/{id}/secret_key/rotate',
    );
  });

  it('finds nothing at paths of others, nor at two versions of one', () => {
    for (const path of [
      '/',
      '/v1',
      '/v1/',
      '/v1/machines/',
      '/v1/v1/machines',
      '/v2/machines',
      '/trpc/machines',
    ])
      expect(findPath(path)).toBeNull();
  });
});
