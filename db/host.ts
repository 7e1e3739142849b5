/** Which host has a SQLite file open: its processes share memory about it, which those of another host would not see. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { StoreError } from './store.ts';

export interface HostOptions {
  /** Tells this host from every other. */
  id: string;
  /** Told when another host took the file, because this one seemed gone: whoever is told must not write any more. */
  onLost: () => void;
}

const BEAT_MS = 2_000;
/** So long another host's mark must stay as it is before that host counts as gone. No two clocks are compared. */
const WATCH_MS = 7_000;
const LOOK_MS = 500;
/** Always as long, so that it is written over in place: that takes no room on a disk that is full. */
const MARK_BYTES = 512;

/** What another host than `id` calls itself whose mark a file has, and whether it is using the file; null where none has. */
export async function otherHost(
  path: string,
  id: string,
): Promise<{ name: string; isUsing: boolean } | null> {
  const first = read(path);
  const isOthers = ({ holder }: Mark) => holder !== null && holder !== id;
  let found = first;
  for (let watchedMs = 0; isOthers(found) && watchedMs < WATCH_MS; watchedMs += LOOK_MS) {
    await sleep(LOOK_MS);
    found = read(path);
    if (found.text !== first.text) break;
  }
  if (!isOthers(found)) return null;
  return { name: nameIn(found), isUsing: found.text !== first.text };
}

const nameIn = ({ text }: Pick<Mark, 'text'>) => text.split(' ')[1] ?? '';

/** Marks the file as this host's, for as long as it is not ended. Throws while another host is using it. */
export async function holdForHost(path: string, { id, onLost }: HostOptions): Promise<() => void> {
  await take(path, id);
  const timer = setInterval(() => {
    try {
      const { holder } = read(path);
      if (holder !== null && holder !== id) onLost();
      else mark(path, id);
    } catch {
      // What is wrong with the file system the next transaction will say.
    }
  }, BEAT_MS);
  timer.unref();
  return () => clearInterval(timer);
}

async function take(path: string, id: string): Promise<void> {
  if (create(path, id)) return;
  const first = read(path);
  // Another process of this host may watch too, and be the first to take it.
  const isOurs = ({ holder }: Mark) => holder === id;
  const isOthers = ({ holder }: Mark) => holder !== null && holder !== id;
  let found = first;
  for (let watchedMs = 0; !isOurs(found) && watchedMs < WATCH_MS; watchedMs += LOOK_MS) {
    await sleep(LOOK_MS);
    found = read(path);
    if (isOthers(found) && found.text !== first.text) throw inUse(found);
  }
  mark(path, id);
  if (isOurs(found)) return;
  // Others may have watched as long: of all who mark it, the last has it.
  await sleep(LOOK_MS);
  found = read(path);
  if (isOthers(found)) throw inUse(found);
}

/** Answers whether there was no mark yet. Of several hosts that begin at the same instant, one makes it. */
function create(path: string, id: string): boolean {
  try {
    writeFileSync(path, textOf(id), { mode: 0o600, flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function inUse(mark: Mark): StoreError {
  return new StoreError(
    'unavailable',
    `Another host, '${nameIn(mark)}', is using this SQLite file, and only one may. Stop it there, or use PostgreSQL`,
  );
}

interface Mark {
  text: string;
  /** Null where there is no mark, or one that is just being made. */
  holder: string | null;
}

function read(path: string): Mark {
  try {
    const text = readFileSync(path, 'utf8');
    return { text, holder: text.split(' ', 1)[0] || null };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { text: '', holder: null };
    throw error;
  }
}

function mark(path: string, id: string): void {
  try {
    writeFileSync(path, textOf(id), { flag: 'r+' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    create(path, id);
  }
}

const textOf = (id: string) =>
  `${`${id} ${hostname()} ${randomBytes(8).toString('hex')}`.padEnd(MARK_BYTES - 1)}\n`;
