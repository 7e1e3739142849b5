/**
 * Bundles the programs of server and workers into `dist`, with what they share in files beside them: as the thousand and more
 * modules that they are made of, a program needs twice the time to begin. Whatever is here looks for its files from
 * `dist/server` or `dist/workers`.
 */
import { defineConfig } from 'rolldown';

const PROGRAMS = {
  server: [
    'audit-verify',
    'backup',
    'cli',
    'doctor',
    'job',
    'main',
    'migrate-to-postgres',
    'restore',
    'rotate-keys',
  ],
  workers: ['main'],
};

/** Those with files of their own that are no modules, or of which there may be no second copy: ioredis is handed to bullmq. */
const external = [
  /^(better-sqlite3|bullmq|ioredis|pg-native|pino|swagger-ui-dist)($|\/)/,
  /^@bull-board\//,
  // Asked for by trpc-cli, which does without.
  /^(@orpc\/server|@valibot\/to-json-schema|effect)$/,
];

export default defineConfig({
  input: Object.fromEntries(
    Object.entries(PROGRAMS).flatMap(([folder, names]) =>
      names.map((name) => [`${folder}/${name}`, `${folder}/${name}.ts`]),
    ),
  ),
  external,
  platform: 'node',
  // What differs from one version of TypeScript to the next is the type checker's to say.
  tsconfig: false,
  output: {
    dir: 'dist',
    format: 'esm',
    entryFileNames: '[name].js',
    // Without hashes: what a running server has yet to load is there after another build too.
    chunkFileNames: 'server/[name].js',
    // A process keeps what it runs, and the maps of it, as text: whitespace, comments and sources would be 10 MB of that.
    minify: { compress: false, mangle: false, codegen: true },
    sourcemap: true,
    sourcemapExcludeSources: true,
  },
});
