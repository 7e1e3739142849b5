CREATE TABLE `initial_access_tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`hash` blob NOT NULL,
	`uses_left` integer NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `initial_access_tokens_hash` ON `initial_access_tokens` (`hash`);--> statement-breakpoint
CREATE INDEX `initial_access_tokens_expires_at` ON `initial_access_tokens` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `oauth_applications` (
	`id` text PRIMARY KEY NOT NULL,
	`client_id` text NOT NULL,
	`source` text NOT NULL,
	`name` text NOT NULL,
	`description` text,
	`client_uri` text,
	`enabled` integer NOT NULL,
	`public` integer NOT NULL,
	`redirect_uris` text NOT NULL,
	`grant_types` text NOT NULL,
	`scopes` text NOT NULL,
	`default_scopes` text,
	`audiences` text,
	`consent_required` integer NOT NULL,
	`pkce_required` integer NOT NULL,
	`access_token_format` text NOT NULL,
	`access_token_ttl_seconds` integer NOT NULL,
	`refresh_token_idle_seconds` integer NOT NULL,
	`refresh_token_max_seconds` integer,
	`code_ttl_seconds` integer NOT NULL,
	`token_generation` integer NOT NULL,
	`tokens_revoked_at` integer,
	`logo_updated_at` integer,
	`document_stale_at` integer,
	`unused_until` integer,
	`last_used_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_applications_client_id` ON `oauth_applications` (`client_id`);--> statement-breakpoint
CREATE INDEX `oauth_applications_name` ON `oauth_applications` (`name`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_applications_created_at` ON `oauth_applications` (`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_applications_unused_until` ON `oauth_applications` (`unused_until`,`id`) WHERE unused_until IS NOT NULL;--> statement-breakpoint
CREATE TABLE `oauth_codes` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`pepper_version` integer NOT NULL,
	`grant_id` text NOT NULL,
	`application_id` text NOT NULL,
	`redirect_uri` text NOT NULL,
	`redirect_uri_given` integer NOT NULL,
	`code_challenge` text,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`redeemed_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_codes_hash` ON `oauth_codes` (`hash`);--> statement-breakpoint
CREATE INDEX `oauth_codes_grant` ON `oauth_codes` (`grant_id`);--> statement-breakpoint
CREATE INDEX `oauth_codes_expires_at` ON `oauth_codes` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `oauth_consents` (
	`id` text PRIMARY KEY NOT NULL,
	`application_id` text NOT NULL,
	`subject` text NOT NULL,
	`terms_hash` blob NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_consents_terms` ON `oauth_consents` (`subject`,`application_id`,`terms_hash`);--> statement-breakpoint
CREATE INDEX `oauth_consents_application` ON `oauth_consents` (`application_id`);--> statement-breakpoint
CREATE TABLE `oauth_grants` (
	`id` text PRIMARY KEY NOT NULL,
	`application_id` text NOT NULL,
	`subject` text NOT NULL,
	`organization_id` text,
	`scopes` text NOT NULL,
	`resources` text NOT NULL,
	`redirect_uri` text NOT NULL,
	`claims` text NOT NULL,
	`auth_time` integer NOT NULL,
	`nonce` text,
	`generation` integer NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer,
	`last_used_at` integer,
	`revoked_at` integer,
	`revocation_reason` text
);
--> statement-breakpoint
CREATE INDEX `oauth_grants_subject` ON `oauth_grants` (`subject`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_grants_application` ON `oauth_grants` (`application_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_grants_created_at` ON `oauth_grants` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `oauth_interactions` (
	`id` text PRIMARY KEY NOT NULL,
	`application_id` text,
	`browser_hash` blob NOT NULL,
	`parameters` text NOT NULL,
	`step` text NOT NULL,
	`upstream` blob,
	`outcome` text,
	`resume_hash` blob,
	`resume_expires_at` integer,
	`network` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_interactions_resume` ON `oauth_interactions` (`resume_hash`);--> statement-breakpoint
CREATE INDEX `oauth_interactions_network` ON `oauth_interactions` (`network`);--> statement-breakpoint
CREATE INDEX `oauth_interactions_expires_at` ON `oauth_interactions` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `oauth_logos` (
	`application_id` text PRIMARY KEY NOT NULL,
	`type` text NOT NULL,
	`bytes` blob NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `oauth_refresh_tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`pepper_version` integer NOT NULL,
	`grant_id` text NOT NULL,
	`application_id` text NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`used_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_refresh_tokens_hash` ON `oauth_refresh_tokens` (`hash`);--> statement-breakpoint
CREATE INDEX `oauth_refresh_tokens_grant` ON `oauth_refresh_tokens` (`grant_id`);--> statement-breakpoint
CREATE INDEX `oauth_refresh_tokens_expires_at` ON `oauth_refresh_tokens` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `oauth_scopes` (
	`name` text PRIMARY KEY NOT NULL,
	`description` text NOT NULL,
	`advertised` integer NOT NULL,
	`resource` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `oauth_settings` (
	`id` integer PRIMARY KEY NOT NULL,
	`registration` text,
	`metadata_documents` text,
	`default_scopes` text,
	`access_token_format` text,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `oauth_tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`application_id` text NOT NULL,
	`grant_id` text,
	`subject` text NOT NULL,
	`organization_id` text,
	`format` text NOT NULL,
	`hash` blob,
	`pepper_version` integer,
	`secret_id` text,
	`signing_kid` text,
	`generation` integer NOT NULL,
	`audience` text NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`revoked_at` integer,
	`revocation_reason` text,
	`last_used_at` integer,
	`status_list_id` text,
	`status_index` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_tokens_hash` ON `oauth_tokens` (`hash`);--> statement-breakpoint
CREATE INDEX `oauth_tokens_application` ON `oauth_tokens` (`application_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_tokens_grant` ON `oauth_tokens` (`grant_id`) WHERE grant_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX `oauth_tokens_expires_at` ON `oauth_tokens` (`expires_at`,`id`);--> statement-breakpoint
CREATE INDEX `oauth_tokens_signing_kid_expires_at` ON `oauth_tokens` (`signing_kid`,`expires_at`) WHERE format = 'jwt';--> statement-breakpoint
CREATE UNIQUE INDEX `oauth_tokens_status` ON `oauth_tokens` (`status_list_id`,`status_index`) WHERE status_list_id IS NOT NULL;--> statement-breakpoint
CREATE TABLE `sign_in_failures` (
	`id` text PRIMARY KEY NOT NULL,
	`count` integer NOT NULL,
	`expires_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `sign_in_failures_expires_at` ON `sign_in_failures` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `user_invitations` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`user_id` text,
	`email` text,
	`name` text,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `user_invitations_hash` ON `user_invitations` (`hash`);--> statement-breakpoint
CREATE INDEX `user_invitations_expires_at` ON `user_invitations` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `user_sessions` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`subject` text NOT NULL,
	`source` text NOT NULL,
	`claims` text NOT NULL,
	`organizations` text NOT NULL,
	`auth_time` integer NOT NULL,
	`created_at` integer NOT NULL,
	`last_seen_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `user_sessions_hash` ON `user_sessions` (`hash`);--> statement-breakpoint
CREATE INDEX `user_sessions_subject` ON `user_sessions` (`subject`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `user_sessions_expires_at` ON `user_sessions` (`expires_at`,`id`);--> statement-breakpoint
CREATE TABLE `users` (
	`id` text PRIMARY KEY NOT NULL,
	`source` text NOT NULL,
	`source_subject` text NOT NULL,
	`name` text,
	`email` text,
	`email_verified` integer NOT NULL,
	`password_hash` blob,
	`enabled` integer NOT NULL,
	`last_signed_in_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `users_source` ON `users` (`source`,`source_subject`);--> statement-breakpoint
CREATE INDEX `users_created_at` ON `users` (`created_at`,`id`);