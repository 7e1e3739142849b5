/** What a path is mounted from (proc(5), /proc/pid/mountinfo). */
export interface Mount {
  type: string;
  /** Of the mount and of its file system, separated by commas. */
  options: string;
}

/** Of all that hold the path the innermost, and of several in one place the last, which hides the others. */
export function mountOf(path: string, mountinfo: string): Mount | null {
  let found: (Mount & { at: string }) | null = null;
  for (const line of mountinfo.split('\n')) {
    const mount = parse(line);
    if (mount && holds(mount.at, path) && mount.at.length >= (found?.at.length ?? 0)) found = mount;
  }
  return found && { type: found.type, options: found.options };
}

function parse(line: string): (Mount & { at: string }) | null {
  // A number of optional fields, ended by a hyphen, is between what is of the mount and what is of the file system.
  const [ofMount = '', ofFileSystem] = line.split(' - ', 2);
  const [, , , , at, options] = ofMount.split(' ');
  const [type, , superOptions] = ofFileSystem?.split(' ') ?? [];
  if (at === undefined || type === undefined) return null;
  return { at: unescaped(at), type, options: `${options},${superOptions}` };
}

const holds = (at: string, path: string) => at === '/' || path === at || path.startsWith(`${at}/`);

/** Blanks and backslashes are written as three octal digits. */
const unescaped = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
