/** What the doctor looks at on the host itself: Node, and the addresses under which it is reached. */
import { type Config, isLoopback } from '../config.ts';
import { type Check, ok, problem, type Seen, warning } from './finding.ts';

export interface AboutHost extends Pick<Config, 'host' | 'publicUrl' | 'trustedProxies'> {
  /** Undefined where Node was told nothing. */
  threadPoolSize: number | undefined;
}

export const HOST_CHECKS: readonly Check<AboutHost>[] = [
  { name: 'Node', look: () => lookAtNode(process.versions.node) },
  { name: 'threads', look: lookAtThreads },
  { name: 'public URL', look: lookAtPublicUrl },
  { name: 'trusted proxies', look: lookAtProxies },
];

const NODE_WANTED = [20, 19] as const;
/** The oldest release that is still mended (https://nodejs.org/en/about/previous-releases). */
const MENDED_MAJOR = 22;

export function lookAtNode(version: string): Seen {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const mend = 'Run Node 24';
  if (major < NODE_WANTED[0] || (major === NODE_WANTED[0] && minor < NODE_WANTED[1]))
    return problem(`${version}, and ${NODE_WANTED.join('.')} or newer is needed`, mend);
  if (major < MENDED_MAJOR) return warning(`${version}, in which holes are no longer mended`, mend);
  return ok(version);
}

/** Look-ups of names, which may hang, and hashing share them (docs/decisions/0018). */
const THREADS_WANTED = 8;

function lookAtThreads({ threadPoolSize }: AboutHost): Seen {
  if (threadPoolSize === undefined) return ok('as `npm start` has them');
  if (threadPoolSize >= THREADS_WANTED) return ok(String(threadPoolSize));
  return warning(
    `${threadPoolSize} for slow work, such as looking names up: a few that hang hold up all the rest`,
    'Leave UV_THREADPOOL_SIZE to `npm start`, which sets 16',
  );
}

function lookAtPublicUrl({ host, publicUrl }: AboutHost): Seen {
  const isSeenAsLoopback = isLoopback(new URL(publicUrl).hostname);
  if (!isLoopback(host) && isSeenAsLoopback)
    return problem(
      `${publicUrl}, while other machines reach ${host}: links and the issuer of JWTs lead them to themselves`,
      'Set COUNTERSIGN_PUBLIC_URL to the origin that callers use',
    );
  if (!isSeenAsLoopback && !publicUrl.startsWith('https:'))
    return warning(
      `${publicUrl}: credentials travel in the clear`,
      'End TLS before the server, and set COUNTERSIGN_PUBLIC_URL to the https origin',
    );
  return ok(publicUrl);
}

function lookAtProxies({ publicUrl, trustedProxies }: AboutHost): Seen {
  if (trustedProxies.length > 0) return ok(trustedProxies.join(', '));
  if (!publicUrl.startsWith('https:')) return ok('none');
  return warning(
    'none, while TLS ends somewhere before: CIDR blocks and limits of a network are judged by the address of the proxy',
    "Set COUNTERSIGN_TRUSTED_PROXIES to the proxy's addresses",
  );
}
