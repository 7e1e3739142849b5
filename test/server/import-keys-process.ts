/** `countersign import-keys` in a process of its own, which its test kills. */
import { runCommand } from '../../server/cli.ts';

const [url = '', secretKey = '', ...argv] = process.argv.slice(2);

process.exitCode = await runCommand(['import-keys', ...argv], {
  env: { COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: secretKey },
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: { write: () => {} },
  version: '1.2.3',
});
