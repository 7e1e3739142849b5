/** `/docs`: the OpenAPI document made readable by Swagger UI, served from here alone and without any inline script. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const API_REFERENCE_PATH = '/docs';

/**
 * For these pages alone. Swagger UI sets styles from its script and draws its icons from `data:`; nothing comes from
 * elsewhere, and what is tried out goes nowhere else.
 */
export const API_REFERENCE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export interface ReferenceFile {
  type: string;
  body: Buffer | string;
}

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Countersign, machine authentication: API</title>
<link rel="stylesheet" href="${API_REFERENCE_PATH}/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="${API_REFERENCE_PATH}/swagger-ui-bundle.js"></script>
<script src="${API_REFERENCE_PATH}/start.js"></script>
</body>
</html>
`;

/** No validator badge: it would ask another host. Credentials are not kept beyond the page. */
const START = `SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true,
  docExpansion: 'none',
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  persistAuthorization: false,
});
`;

const JAVASCRIPT = 'text/javascript; charset=utf-8';

/** Every file there is, by its path below `/docs`; read when first asked for. */
const FILES: ReadonlyMap<string, () => Promise<ReferenceFile>> = new Map([
  ['', async () => ({ type: 'text/html; charset=utf-8', body: PAGE })],
  ['/start.js', async () => ({ type: JAVASCRIPT, body: START })],
  ['/swagger-ui.css', fromPackage('swagger-ui.css', 'text/css; charset=utf-8')],
  ['/swagger-ui-bundle.js', fromPackage('swagger-ui-bundle.js', JAVASCRIPT)],
]);

export const API_REFERENCE_FILES = [...FILES.keys()].map((file) => API_REFERENCE_PATH + file);

/** The file at a path, one of `API_REFERENCE_FILES`. */
export function readReferenceFile(path: string): Promise<ReferenceFile> | null {
  return FILES.get(path.slice(API_REFERENCE_PATH.length))?.() ?? null;
}

function fromPackage(name: string, type: string): () => Promise<ReferenceFile> {
  let file: Promise<ReferenceFile> | undefined;
  return () => {
    file ??= readFile(join(packageFolder(), name)).then((body) => ({ type, body }));
    return file;
  };
}

const packageFolder = () => dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
