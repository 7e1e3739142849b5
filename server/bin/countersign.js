#!/usr/bin/env node
import { existsSync, readFileSync } from 'node:fs';

const root = new URL('../../', import.meta.url);
const cli = new URL('dist/server/cli.js', root);

if (existsSync(cli)) {
  const { runCommand } = await import(cli.href);
  const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  const { env, stdin, stdout, stderr } = process;
  // Whoever reads has read enough, as `head` has: ended as SIGPIPE would end it.
  stdout.on('error', (error) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(141);
  });
  process.exitCode = await runCommand(process.argv.slice(2), { env, stdin, stdout, stderr, version });
} else {
  process.stderr.write("Wanted the built program, found none: run 'npm run build' once\n");
  process.exitCode = 1;
}
