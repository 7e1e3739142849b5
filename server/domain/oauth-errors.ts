/**
 * The one table of OAuth's error codes: closed, with the HTTP status that each has where no redirect carries it, and where
 * it is defined.
 */
export const OAUTH_ERRORS = {
  invalid_request: { status: 400, source: 'RFC 6749, section 5.2' },
  invalid_client: { status: 401, source: 'RFC 6749, section 5.2' },
  invalid_grant: { status: 400, source: 'RFC 6749, section 5.2' },
  unauthorized_client: { status: 400, source: 'RFC 6749, section 5.2' },
  unsupported_grant_type: { status: 400, source: 'RFC 6749, section 5.2' },
  invalid_scope: { status: 400, source: 'RFC 6749, section 5.2' },
  access_denied: { status: 403, source: 'RFC 6749, section 4.1.2.1' },
  unsupported_response_type: { status: 400, source: 'RFC 6749, section 4.1.2.1' },
  server_error: { status: 500, source: 'RFC 6749, section 4.1.2.1' },
  temporarily_unavailable: { status: 503, source: 'RFC 6749, section 4.1.2.1' },
  invalid_token: { status: 401, source: 'RFC 6750, section 3.1' },
  insufficient_scope: { status: 403, source: 'RFC 6750, section 3.1' },
  invalid_target: { status: 400, source: 'RFC 8707, section 2' },
  login_required: { status: 400, source: 'OpenID Connect Core 1.0, section 3.1.2.6' },
  consent_required: { status: 400, source: 'OpenID Connect Core 1.0, section 3.1.2.6' },
  request_not_supported: { status: 400, source: 'OpenID Connect Core 1.0, section 3.1.2.6' },
  request_uri_not_supported: { status: 400, source: 'OpenID Connect Core 1.0, section 3.1.2.6' },
  registration_not_supported: { status: 400, source: 'OpenID Connect Core 1.0, section 3.1.2.6' },
  invalid_redirect_uri: { status: 400, source: 'RFC 7591, section 3.2.2' },
  invalid_client_metadata: { status: 400, source: 'RFC 7591, section 3.2.2' },
} as const satisfies Record<string, { status: number; source: string }>;

export type OauthErrorCode = keyof typeof OAUTH_ERRORS;

/** A refusal in OAuth's terms. Its message is `error_description`: what was wanted and what was found, and no secret. */
export class OauthError extends Error {
  override readonly name = 'OauthError';
  readonly code: OauthErrorCode;
  /** HTTP status, where it is not a redirect that carries it. */
  readonly status: number;
  readonly retryAfterMs: number | undefined;
  /** What the challenge of Bearer says (RFC 6750, section 3). */
  readonly challenge: Readonly<Record<string, string>>;

  constructor(
    code: OauthErrorCode,
    message: string,
    options: { status?: number; retryAfterMs?: number; challenge?: Record<string, string> } = {},
  ) {
    super(message);
    this.code = code;
    this.status = options.status ?? OAUTH_ERRORS[code].status;
    this.retryAfterMs = options.retryAfterMs;
    this.challenge = options.challenge ?? { error: code };
  }
}
