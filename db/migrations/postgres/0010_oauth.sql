CREATE TABLE "initial_access_tokens" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text collate "C" NOT NULL,
	"hash" "bytea" NOT NULL,
	"uses_left" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_applications" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"client_id" text collate "C" NOT NULL,
	"source" text collate "C" NOT NULL,
	"name" text collate "C" NOT NULL,
	"description" text collate "C",
	"client_uri" text collate "C",
	"enabled" boolean NOT NULL,
	"public" boolean NOT NULL,
	"redirect_uris" text NOT NULL,
	"grant_types" text NOT NULL,
	"scopes" text NOT NULL,
	"default_scopes" text,
	"audiences" text,
	"consent_required" boolean NOT NULL,
	"pkce_required" boolean NOT NULL,
	"access_token_format" text collate "C" NOT NULL,
	"access_token_ttl_seconds" bigint NOT NULL,
	"refresh_token_idle_seconds" bigint NOT NULL,
	"refresh_token_max_seconds" bigint,
	"code_ttl_seconds" bigint NOT NULL,
	"token_generation" bigint NOT NULL,
	"tokens_revoked_at" bigint,
	"logo_updated_at" bigint,
	"document_stale_at" bigint,
	"unused_until" bigint,
	"last_used_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_codes" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"pepper_version" bigint NOT NULL,
	"grant_id" text collate "C" NOT NULL,
	"application_id" text collate "C" NOT NULL,
	"redirect_uri" text collate "C" NOT NULL,
	"redirect_uri_given" boolean NOT NULL,
	"code_challenge" text collate "C",
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"redeemed_at" bigint
);
--> statement-breakpoint
CREATE TABLE "oauth_consents" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"application_id" text collate "C" NOT NULL,
	"subject" text collate "C" NOT NULL,
	"terms_hash" "bytea" NOT NULL,
	"scopes" text NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_grants" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"application_id" text collate "C" NOT NULL,
	"subject" text collate "C" NOT NULL,
	"organization_id" text collate "C",
	"scopes" text NOT NULL,
	"resources" text NOT NULL,
	"redirect_uri" text collate "C" NOT NULL,
	"claims" text NOT NULL,
	"auth_time" bigint NOT NULL,
	"nonce" text collate "C",
	"generation" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint,
	"last_used_at" bigint,
	"revoked_at" bigint,
	"revocation_reason" text collate "C"
);
--> statement-breakpoint
CREATE TABLE "oauth_interactions" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"application_id" text collate "C",
	"browser_hash" "bytea" NOT NULL,
	"parameters" text NOT NULL,
	"step" text collate "C" NOT NULL,
	"upstream" "bytea",
	"outcome" text,
	"resume_hash" "bytea",
	"resume_expires_at" bigint,
	"network" text collate "C" NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_logos" (
	"application_id" text collate "C" PRIMARY KEY NOT NULL,
	"type" text collate "C" NOT NULL,
	"bytes" "bytea" NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_refresh_tokens" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"pepper_version" bigint NOT NULL,
	"grant_id" text collate "C" NOT NULL,
	"application_id" text collate "C" NOT NULL,
	"scopes" text NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"used_at" bigint
);
--> statement-breakpoint
CREATE TABLE "oauth_scopes" (
	"name" text collate "C" PRIMARY KEY NOT NULL,
	"description" text collate "C" NOT NULL,
	"advertised" boolean NOT NULL,
	"resource" text collate "C",
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_settings" (
	"id" bigint PRIMARY KEY NOT NULL,
	"registration" text collate "C",
	"metadata_documents" text collate "C",
	"default_scopes" text,
	"access_token_format" text collate "C",
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "oauth_tokens" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"application_id" text collate "C" NOT NULL,
	"grant_id" text collate "C",
	"subject" text collate "C" NOT NULL,
	"organization_id" text collate "C",
	"format" text collate "C" NOT NULL,
	"hash" "bytea",
	"pepper_version" bigint,
	"secret_id" text collate "C",
	"signing_kid" text collate "C",
	"generation" bigint NOT NULL,
	"audience" text NOT NULL,
	"scopes" text NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"revoked_at" bigint,
	"revocation_reason" text collate "C",
	"last_used_at" bigint,
	"status_list_id" text collate "C",
	"status_index" bigint
);
--> statement-breakpoint
CREATE TABLE "sign_in_failures" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"count" bigint NOT NULL,
	"expires_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "user_invitations" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"user_id" text collate "C",
	"email" text collate "C",
	"name" text collate "C",
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "user_sessions" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"subject" text collate "C" NOT NULL,
	"source" text collate "C" NOT NULL,
	"claims" text NOT NULL,
	"organizations" text NOT NULL,
	"auth_time" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"last_seen_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"source" text collate "C" NOT NULL,
	"source_subject" text collate "C" NOT NULL,
	"name" text collate "C",
	"email" text collate "C",
	"email_verified" boolean NOT NULL,
	"password_hash" "bytea",
	"enabled" boolean NOT NULL,
	"last_signed_in_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX "initial_access_tokens_hash" ON "initial_access_tokens" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "initial_access_tokens_expires_at" ON "initial_access_tokens" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_applications_client_id" ON "oauth_applications" USING btree ("client_id");--> statement-breakpoint
CREATE INDEX "oauth_applications_name" ON "oauth_applications" USING btree ("name","id");--> statement-breakpoint
CREATE INDEX "oauth_applications_created_at" ON "oauth_applications" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "oauth_applications_unused_until" ON "oauth_applications" USING btree ("unused_until","id") WHERE unused_until IS NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_codes_hash" ON "oauth_codes" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "oauth_codes_grant" ON "oauth_codes" USING btree ("grant_id");--> statement-breakpoint
CREATE INDEX "oauth_codes_expires_at" ON "oauth_codes" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_consents_terms" ON "oauth_consents" USING btree ("subject","application_id","terms_hash");--> statement-breakpoint
CREATE INDEX "oauth_consents_application" ON "oauth_consents" USING btree ("application_id");--> statement-breakpoint
CREATE INDEX "oauth_grants_subject" ON "oauth_grants" USING btree ("subject","created_at","id");--> statement-breakpoint
CREATE INDEX "oauth_grants_application" ON "oauth_grants" USING btree ("application_id","created_at","id");--> statement-breakpoint
CREATE INDEX "oauth_grants_created_at" ON "oauth_grants" USING btree ("created_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_interactions_resume" ON "oauth_interactions" USING btree ("resume_hash");--> statement-breakpoint
CREATE INDEX "oauth_interactions_network" ON "oauth_interactions" USING btree ("network");--> statement-breakpoint
CREATE INDEX "oauth_interactions_expires_at" ON "oauth_interactions" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_refresh_tokens_hash" ON "oauth_refresh_tokens" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "oauth_refresh_tokens_grant" ON "oauth_refresh_tokens" USING btree ("grant_id");--> statement-breakpoint
CREATE INDEX "oauth_refresh_tokens_expires_at" ON "oauth_refresh_tokens" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_tokens_hash" ON "oauth_tokens" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "oauth_tokens_application" ON "oauth_tokens" USING btree ("application_id","created_at","id");--> statement-breakpoint
CREATE INDEX "oauth_tokens_grant" ON "oauth_tokens" USING btree ("grant_id") WHERE grant_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "oauth_tokens_expires_at" ON "oauth_tokens" USING btree ("expires_at","id");--> statement-breakpoint
CREATE INDEX "oauth_tokens_signing_kid_expires_at" ON "oauth_tokens" USING btree ("signing_kid","expires_at") WHERE format = 'jwt';--> statement-breakpoint
CREATE UNIQUE INDEX "oauth_tokens_status" ON "oauth_tokens" USING btree ("status_list_id","status_index") WHERE status_list_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "sign_in_failures_expires_at" ON "sign_in_failures" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "user_invitations_hash" ON "user_invitations" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "user_invitations_expires_at" ON "user_invitations" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "user_sessions_hash" ON "user_sessions" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "user_sessions_subject" ON "user_sessions" USING btree ("subject","created_at","id");--> statement-breakpoint
CREATE INDEX "user_sessions_expires_at" ON "user_sessions" USING btree ("expires_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "users_source" ON "users" USING btree ("source","source_subject");--> statement-breakpoint
CREATE INDEX "users_created_at" ON "users" USING btree ("created_at","id");