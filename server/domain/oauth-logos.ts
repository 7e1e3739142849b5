/** Logos: what an application shows of itself where it asks for consent. An administrator gives it one. */
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { oauthApplicationId } from './fields.ts';
import { lockApplication, type OauthApplication, toOauthApplication } from './oauth-applications.ts';

export interface OauthLogo {
  /** Its media type, as its first bytes say. */
  type: LogoType;
  bytes: Buffer;
  updatedAt: number;
}

export type LogoType = 'image/jpeg' | 'image/png' | 'image/gif' | 'image/webp';

/** Rows are read whole, and pages of consent show it at 64 pixels. */
export const LOGO_BYTES_MAX = 512 * 1024;

/** Formats that run nothing, by what their files begin with: no SVG, whatever it is called. */
const BEGINNINGS: readonly [LogoType, (beginning: string) => boolean][] = [
  ['image/jpeg', (beginning) => beginning.startsWith('\xff\xd8\xff')],
  ['image/png', (beginning) => beginning.startsWith('\x89PNG\r\n\x1a\n')],
  ['image/gif', (beginning) => /^GIF8[79]a/.test(beginning)],
  ['image/webp', (beginning) => beginning.startsWith('RIFF') && beginning.slice(8) === 'WEBP'],
];

/** What an image is, whatever it is said to be; null for what is none that is taken. */
export function logoTypeOf(bytes: Buffer): LogoType | null {
  const beginning = bytes.toString('latin1', 0, 12);
  return BEGINNINGS.find(([, isIt]) => isIt(beginning))?.[0] ?? null;
}

export const setOauthLogoInput = z.strictObject({
  applicationId: oauthApplicationId.meta({ positional: true }),
  /** The file, as base64 (RFC 4648, section 4). */
  content: z
    .base64()
    .min(1)
    .max(Math.ceil(LOGO_BYTES_MAX / 3) * 4),
});

export const setOauthLogo = (
  deps: Deps,
  caller: Caller,
  { applicationId, content }: z.output<typeof setOauthLogoInput>,
) => saveOauthLogo(deps, caller, applicationId, Buffer.from(content, 'base64'));

/** Gives an application a logo in the place of the one it had; the same again leaves no event. Throws `not_found`, `invalid_input`, `payload_too_large`. */
export async function saveOauthLogo(
  deps: Deps,
  caller: Caller,
  id: string,
  bytes: Buffer,
): Promise<OauthApplication> {
  if (bytes.length > LOGO_BYTES_MAX)
    throw new CountersignError('payload_too_large', `Wanted a logo of at most ${LOGO_BYTES_MAX} bytes`);
  const type = logoTypeOf(bytes);
  if (type === null)
    throw new CountersignError('invalid_input', 'Cannot save logo: wanted a JPEG, PNG, GIF or WebP image', {
      field: 'content',
    });
  return change(deps, caller, async (tx) => {
    const application = await lockApplication(tx, id);
    const { oauthLogos: l, oauthApplications: a } = tx.tables;
    const [before] = await tx.db.select({ bytes: l.bytes }).from(l).where(eq(l.application_id, id));
    if (before?.bytes.equals(bytes)) return { result: toOauthApplication(application), event: null };
    const now = deps.now();
    const logo = { type, bytes, updated_at: now };
    await tx.db
      .insert(l)
      .values({ application_id: id, ...logo })
      .onConflictDoUpdate({ target: l.application_id, set: logo });
    await tx.db.update(a).set({ logo_updated_at: now, updated_at: now }).where(eq(a.id, id));
    return {
      result: toOauthApplication({ ...application, logo_updated_at: now, updated_at: now }),
      event: {
        type: 'oauth_application.updated' as const,
        objectId: id,
        data: { name: application.name, changed: ['logo'] },
      },
    };
  });
}

export const oauthLogoInput = z.strictObject({
  applicationId: oauthApplicationId.meta({ positional: true }),
});

/** Takes its logo from an application; one without any is answered as it stands. */
export async function deleteOauthLogo(
  deps: Deps,
  caller: Caller,
  { applicationId: id }: z.output<typeof oauthLogoInput>,
): Promise<OauthApplication> {
  return change(deps, caller, async (tx) => {
    const application = await lockApplication(tx, id);
    if (application.logo_updated_at === null) return { result: toOauthApplication(application), event: null };
    const now = deps.now();
    const { oauthLogos: l, oauthApplications: a } = tx.tables;
    await tx.db.delete(l).where(eq(l.application_id, id));
    await tx.db.update(a).set({ logo_updated_at: null, updated_at: now }).where(eq(a.id, id));
    return {
      result: toOauthApplication({ ...application, logo_updated_at: null, updated_at: now }),
      event: {
        type: 'oauth_application.updated' as const,
        objectId: id,
        data: { name: application.name, changed: ['logo'] },
      },
    };
  });
}

export async function findOauthLogo(
  { store: { read } }: Pick<Deps, 'store'>,
  applicationId: string,
): Promise<OauthLogo | null> {
  const { oauthLogos: l } = read.tables;
  const [row] = await read.db.select().from(l).where(eq(l.application_id, applicationId));
  return row ? { type: row.type as LogoType, bytes: row.bytes, updatedAt: row.updated_at } : null;
}

/** Where its logo is shown from; null without one. Another logo is at another URL. */
export const logoUrlOf = (
  publicUrl: string,
  { id, logoUpdatedAt }: Pick<OauthApplication, 'id' | 'logoUpdatedAt'>,
): string | null => (logoUpdatedAt === null ? null : `${publicUrl}/oauth/logos/${id}?v=${logoUpdatedAt}`);
