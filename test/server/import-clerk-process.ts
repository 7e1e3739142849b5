/** `countersign import clerk` in a process of its own, which its test kills. */
import { runCommand } from '../../server/cli.ts';

const [url = '', secretKey = '', clerkUrl = '', clerkSecretKey = ''] = process.argv.slice(2);

process.exitCode = await runCommand(['import', 'clerk', '--api-url', clerkUrl], {
  env: {
    COUNTERSIGN_URL: url,
    COUNTERSIGN_SECRET_KEY: secretKey,
    CLERK_SECRET_KEY: clerkSecretKey,
  },
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: { write: () => {} },
  version: '1.2.3',
});
