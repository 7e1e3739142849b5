/** Bodies of `multipart/form-data` (RFC 7578), as the platform parses them: for the one route that takes a file. */
import { CountersignError } from '../errors.ts';

const MULTIPART_TYPE = /^multipart\/form-data[ \t]*;/i;

/** Its parts by name, each once: files as their bytes, fields as text. Throws `unsupported_media_type` and `invalid_input`. */
export async function readMultipart(
  bytes: Buffer,
  contentType: string | undefined,
): Promise<Record<string, string | Buffer>> {
  if (contentType === undefined || !MULTIPART_TYPE.test(contentType))
    throw new CountersignError(
      'unsupported_media_type',
      "Wanted the header 'Content-Type: multipart/form-data' with its boundary",
    );
  const parts: Record<string, string | Buffer> = {};
  for (const [name, part] of await parse(bytes, contentType)) {
    if (Object.hasOwn(parts, name)) throw invalid('wanted each part once');
    parts[name] = typeof part === 'string' ? part : Buffer.from(await part.arrayBuffer());
  }
  return parts;
}

async function parse(bytes: Buffer, contentType: string): Promise<FormData> {
  try {
    return await new Response(new Uint8Array(bytes), { headers: { 'Content-Type': contentType } }).formData();
  } catch {
    throw invalid('wanted parts of multipart/form-data');
  }
}

const invalid = (why: string) =>
  new CountersignError('invalid_input', `Cannot read the body: ${why}`, { field: 'body' });
