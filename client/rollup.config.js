/**
 * Rolls the client up into `dist/package`, which is what is published: one module and its types. tRPC comes along: its
 * packages would bring a TypeScript compiler, their peer, into every service that verifies a token.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { dts } from 'rollup-plugin-dts';

const resolvePath = (specifier) => fileURLToPath(import.meta.resolve(specifier));

const bundledTrpc = {
  name: 'bundled-trpc',
  resolveId: (specifier) => (specifier.startsWith('@trpc/') ? resolvePath(specifier) : null),
};

const license = readFileSync(new URL('../LICENSE', import.meta.resolve('@trpc/client')), 'utf8');
const banner = `/*!\n * Contains parts of tRPC (https://trpc.io):\n *\n${license.trim().replace(/^/gm, ' * ').replace(/ +$/gm, '')}\n */`;

export default [
  {
    input: 'dist/client/index.js',
    external: /^node:/,
    plugins: [bundledTrpc],
    output: { file: 'dist/package/index.js', format: 'es', banner },
  },
  {
    input: 'dist/client/index.d.ts',
    external: /^node:/,
    plugins: [dts({ includeExternal: ['@trpc/server', 'zod'] })],
    output: { file: 'dist/package/index.d.ts', format: 'es', banner },
  },
];
