/**
 * Checks that the log is what this installation wrote: `npm run audit:verify [-- --checkpoint <jws or file>]`. Changes
 * no row, may be run beside servers, and ends with 1 at the first fault.
 */
import { readFileSync } from 'node:fs';
import type { Store } from '../db/store.ts';
import { type Config, ConfigError, loadConfig } from './config.ts';
import { createKeyring } from './crypto/keyring.ts';
import { type LogReport, verifyLog } from './domain/event-log.ts';
import { openKeys } from './domain/installation.ts';
import { createSigner } from './domain/signing-keys.ts';
import { withInstalledStore } from './installed-store.ts';
import { keptMasterKey } from './key-files.ts';
import { asThisHost, refuseToStart } from './lifecycle.ts';
import { createLogger, type Logger } from './logger.ts';

/** How often progress is told. */
const LINE_MS = 3_000;
/** A compact JWS (RFC 7515, section 7.1) whose header is an object in JSON: no file name looks so by mistake. */
const COMPACT_JWS = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/;

await main().catch((error) => refuseToStart(error, 'check the log'));

async function main() {
  const checkpoint = readCheckpointArgument(process.argv.slice(2));
  const config = loadConfig(process.env);
  const logger = createLogger(config.logLevel);
  const options = { location: config.databaseLocation, host: asThisHost(config, logger) };
  await withInstalledStore(options, async (store) => {
    const report = await check(store, { config, logger }, checkpoint);
    process.stdout.write(`${describe(report, checkpoint !== undefined)}\n`);
    if (report.fault) process.exitCode = 1;
  });
}

/**
 * A JWS, or the file that it is in. Whatever is neither is refused here: a mistyped name would be taken for a forged
 * checkpoint.
 */
function readCheckpointArgument(args: readonly string[]): string | undefined {
  if (args.length === 0) return undefined;
  const [, given] = /^--checkpoint[= ](\S.*)$/.exec(args.join(' ')) ?? [];
  if (given === undefined)
    throw new ConfigError([
      {
        name: 'arguments',
        wanted: "'--checkpoint' and a checkpoint or the file that it is in, or none",
        found: `'${args.join(' ')}'`,
      },
    ]);
  if (COMPACT_JWS.test(given)) return given;
  const held = contentOf(given);
  if (COMPACT_JWS.test(held)) return held;
  throw noCheckpoint('a file that holds none');
}

function contentOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw noCheckpoint(
      `what is no checkpoint, and no file that can be read (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

/** Says nothing of what was given: it may be anything, pasted by mistake. */
function noCheckpoint(found: string): ConfigError {
  return new ConfigError([
    { name: '--checkpoint', wanted: 'a checkpoint, or the name of a file that it is in', found },
  ]);
}

async function check(
  store: Store,
  { config, logger }: { config: Config; logger: Logger },
  checkpoint: string | undefined,
): Promise<LogReport> {
  const masterKey = config.masterKey ?? (await store.exclusively(() => keptMasterKey(store, config, logger)));
  const { keys } = await openKeys(store.read, masterKey);
  const keyring = createKeyring(keys);
  const signer = createSigner(store, keyring);
  let saidAt = performance.now();
  return verifyLog(
    { store, keyring, signer },
    {
      checkpoint,
      now: Date.now(),
      onProgress({ done, total }) {
        if (performance.now() - saidAt < LINE_MS) return;
        saidAt = performance.now();
        process.stderr.write(`Checked ${done} of ${total} events (${Math.floor((100 * done) / total)} %)\n`);
      },
    },
  );
}

function describe({ fault, firstSeq, headSeq, events, checkpoints }: LogReport, isHeld: boolean): string {
  if (fault) return `The log is not as it was written. ${fault.message} (${fault.fault}, at ${fault.seq})`;
  const held = isHeld ? ' It is what the checkpoint given vouches for.' : '';
  return `The log is whole: events ${firstSeq} to ${headSeq}, ${events} in all, and ${checkpoints} checkpoints.${held}`;
}
