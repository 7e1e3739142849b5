CREATE TABLE `credits` (
	`owner_kind` text NOT NULL,
	`owner_id` text NOT NULL,
	`remaining` integer NOT NULL,
	`refill_amount` integer,
	`refill_interval_seconds` integer,
	`refilled_at` integer NOT NULL,
	PRIMARY KEY(`owner_kind`, `owner_id`)
);
--> statement-breakpoint
CREATE TABLE `idempotency_keys` (
	`principal_id` text NOT NULL,
	`procedure` text NOT NULL,
	`key` text NOT NULL,
	`input_hash` blob NOT NULL,
	`answer` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	PRIMARY KEY(`principal_id`, `procedure`, `key`)
);
--> statement-breakpoint
CREATE INDEX `idempotency_keys_expires_at` ON `idempotency_keys` (`expires_at`);--> statement-breakpoint
CREATE TABLE `imported_shapes` (
	`owner_kind` text NOT NULL,
	`prefix` text NOT NULL,
	`length` integer NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`owner_kind`, `prefix`, `length`)
);
--> statement-breakpoint
CREATE TABLE `key_policies` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`description` text,
	`is_default` integer NOT NULL,
	`prefix` text,
	`allowed_scopes` text,
	`default_ttl_seconds` integer,
	`max_ttl_seconds` integer,
	`live_keys_max` integer,
	`rate_limit` integer,
	`rate_limit_window_seconds` integer,
	`credits` integer,
	`refill_amount` integer,
	`refill_interval_seconds` integer,
	`retention_seconds` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `key_policies_name` ON `key_policies` (`name`);--> statement-breakpoint
CREATE UNIQUE INDEX `key_policies_one_default` ON `key_policies` (`is_default`) WHERE is_default;--> statement-breakpoint
CREATE INDEX `key_policies_created_at` ON `key_policies` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `key_prefixes` (
	`prefix` text PRIMARY KEY NOT NULL,
	`description` text,
	`created_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `m2m_token_counts` (
	`machine_id` text NOT NULL,
	`expires_hour` integer NOT NULL,
	`count` integer NOT NULL,
	PRIMARY KEY(`machine_id`, `expires_hour`)
);
--> statement-breakpoint
CREATE TABLE `subject_usage` (
	`subject` text NOT NULL,
	`hour` integer NOT NULL,
	`valid_count` integer NOT NULL,
	`refused_count` integer NOT NULL,
	PRIMARY KEY(`subject`, `hour`)
);
--> statement-breakpoint
CREATE TABLE `subjects` (
	`id` text PRIMARY KEY NOT NULL,
	`enabled` integer NOT NULL,
	`rate_limit` integer,
	`rate_limit_window_seconds` integer,
	`has_credits` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `subjects_created_at` ON `subjects` (`created_at`,`id`);--> statement-breakpoint
ALTER TABLE `api_keys` ADD `policy_id` text;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `prefix` text DEFAULT 'ak_' NOT NULL;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `rate_limit` integer;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `rate_limit_window_seconds` integer;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `has_credits` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `allowed_cidrs` text;--> statement-breakpoint
CREATE INDEX `api_keys_policy_revoked_at` ON `api_keys` (`policy_id`,`revoked_at`) WHERE revoked_at IS NOT NULL;--> statement-breakpoint
CREATE INDEX `api_keys_policy_expires_at` ON `api_keys` (`policy_id`,`expires_at`) WHERE expires_at IS NOT NULL;--> statement-breakpoint
ALTER TABLE `machines` ADD `allowed_cidrs` text;--> statement-breakpoint
ALTER TABLE `machines` ADD `live_tokens_max` integer DEFAULT 1000000 NOT NULL;--> statement-breakpoint
ALTER TABLE `machines` ADD `mints_per_minute_max` integer DEFAULT 60000 NOT NULL;--> statement-breakpoint
ALTER TABLE `secret_keys` ADD `allowed_cidrs` text;--> statement-breakpoint
ALTER TABLE `wrapped_keys` ADD `state` text DEFAULT 'active' NOT NULL;