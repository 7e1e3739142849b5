/**
 * Rolls the client up into `dist/package`, which is what is published: a module for each entry of package.json's
 * `exports`, and its types. The entries are built together, so that what two of them export is one and the same. tRPC
 * comes along: its packages would bring a TypeScript compiler, their peer, into every service that verifies a token.
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
const notice = `/*!\n * Contains parts of tRPC (https://trpc.io):\n *\n${license.trim().replace(/^/gm, ' * ').replace(/ +$/gm, '')}\n */`;

const banner = ({ moduleIds }) => (moduleIds.some((id) => id.includes('@trpc/')) ? notice : '');

const output = { dir: 'dist/package', format: 'es', chunkFileNames: '[name].js', banner };

/** Its own look, for whoever imports it. */
const stylesheet = {
  name: 'stylesheet',
  generateBundle() {
    const source = readFileSync(new URL('./react/panel.css', import.meta.url));
    this.emitFile({ type: 'asset', fileName: 'panel.css', source });
  },
};

const external = /^(node:|lru-cache$|react$|react\/)/;

export default [
  {
    input: {
      index: 'dist/modules/client/index.js',
      errors: 'dist/modules/client/errors.js',
      express: 'dist/modules/client/express.js',
      fetch: 'dist/modules/client/fetch.js',
      m2m: 'dist/modules/client/m2m.js',
      react: 'dist/modules/client/react/index.js',
      verifier: 'dist/modules/client/verifier.js',
      webhooks: 'dist/modules/client/webhooks.js',
    },
    external,
    plugins: [bundledTrpc, stylesheet],
    output,
  },
  {
    input: {
      index: 'dist/modules/client/index.d.ts',
      errors: 'dist/modules/client/errors.d.ts',
      express: 'dist/modules/client/express.d.ts',
      fetch: 'dist/modules/client/fetch.d.ts',
      m2m: 'dist/modules/client/m2m.d.ts',
      react: 'dist/modules/client/react/index.d.ts',
      verifier: 'dist/modules/client/verifier.d.ts',
      webhooks: 'dist/modules/client/webhooks.d.ts',
    },
    external,
    plugins: [dts({ includeExternal: ['@trpc/server', 'zod'] })],
    // What several entries share is named as its module, whose name ends in '.d' by then.
    output: { ...output, chunkFileNames: ({ name }) => `${name.replace(/\.d$/, '')}.d.ts` },
  },
];
