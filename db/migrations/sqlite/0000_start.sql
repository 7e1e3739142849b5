CREATE TABLE `api_keys` (
	`id` text PRIMARY KEY NOT NULL,
	`subject` text NOT NULL,
	`name` text NOT NULL,
	`live_name` text,
	`description` text,
	`scopes` text NOT NULL,
	`claims` text,
	`created_by` text,
	`enabled` integer NOT NULL,
	`expires_at` integer,
	`revoked_at` integer,
	`revocation_reason` text,
	`revocation_note` text,
	`last_used_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `api_keys_subject_live_name` ON `api_keys` (`subject`,`live_name`);--> statement-breakpoint
CREATE INDEX `api_keys_subject_created_at` ON `api_keys` (`subject`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `api_keys_name` ON `api_keys` (`name`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `api_keys_created_at` ON `api_keys` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `deliveries` (
	`id` text PRIMARY KEY NOT NULL,
	`event_seq` integer NOT NULL,
	`endpoint_id` text NOT NULL,
	`state` text NOT NULL,
	`priority` integer NOT NULL,
	`attempt` integer NOT NULL,
	`next_at` integer NOT NULL,
	`created_at` integer NOT NULL,
	`first_attempt_at` integer,
	`delivered_at` integer,
	`last_status` integer,
	`last_error` text
);
--> statement-breakpoint
CREATE UNIQUE INDEX `deliveries_event_endpoint` ON `deliveries` (`event_seq`,`endpoint_id`);--> statement-breakpoint
CREATE INDEX `deliveries_due` ON `deliveries` (`priority`,`next_at`) WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX `deliveries_endpoint` ON `deliveries` (`endpoint_id`,`event_seq`);--> statement-breakpoint
CREATE TABLE `event_head` (
	`id` integer PRIMARY KEY NOT NULL,
	`seq` integer NOT NULL,
	`hash` blob NOT NULL,
	`at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `events` (
	`seq` integer PRIMARY KEY NOT NULL,
	`id` text NOT NULL,
	`at` integer NOT NULL,
	`type` text NOT NULL,
	`actor_kind` text NOT NULL,
	`actor_id` text NOT NULL,
	`object_id` text NOT NULL,
	`subject` text,
	`request_id` text NOT NULL,
	`data` text NOT NULL,
	`hash` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `events_id` ON `events` (`id`);--> statement-breakpoint
CREATE TABLE `installation` (
	`id` integer PRIMARY KEY NOT NULL,
	`epoch` text NOT NULL,
	`master_key_check` blob NOT NULL,
	`oldest_binary` integer NOT NULL,
	`created_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `m2m_tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`machine_id` text NOT NULL,
	`format` text NOT NULL,
	`hash` blob,
	`pepper_version` integer,
	`secret_id` text NOT NULL,
	`generation` integer NOT NULL,
	`audience` text NOT NULL,
	`scopes` text NOT NULL,
	`claims` text,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`revoked_at` integer,
	`revocation_reason` text,
	`last_used_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `m2m_tokens_hash` ON `m2m_tokens` (`hash`);--> statement-breakpoint
CREATE INDEX `m2m_tokens_machine_created_at` ON `m2m_tokens` (`machine_id`,`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `machine_scopes` (
	`from_machine_id` text NOT NULL,
	`to_machine_id` text NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	PRIMARY KEY(`from_machine_id`, `to_machine_id`),
	FOREIGN KEY (`from_machine_id`) REFERENCES `machines`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`to_machine_id`) REFERENCES `machines`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `machine_scopes_to` ON `machine_scopes` (`to_machine_id`,`from_machine_id`);--> statement-breakpoint
CREATE TABLE `machines` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`description` text,
	`enabled` integer NOT NULL,
	`default_token_ttl_seconds` integer NOT NULL,
	`max_token_ttl_seconds` integer NOT NULL,
	`may_verify` integer NOT NULL,
	`token_generation` integer NOT NULL,
	`tokens_revoked_at` integer,
	`last_used_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `machines_name` ON `machines` (`name`);--> statement-breakpoint
CREATE INDEX `machines_created_at` ON `machines` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `secret_keys` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`role` text NOT NULL,
	`bootstrap` integer NOT NULL,
	`expires_at` integer,
	`revoked_at` integer,
	`last_used_at` integer,
	`created_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE INDEX `secret_keys_created_at` ON `secret_keys` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `secrets` (
	`id` text PRIMARY KEY NOT NULL,
	`owner_kind` text NOT NULL,
	`owner_id` text NOT NULL,
	`hash` blob NOT NULL,
	`pepper_version` integer NOT NULL,
	`start` text NOT NULL,
	`mac` blob,
	`created_at` integer NOT NULL,
	`expires_at` integer,
	`revoked_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `secrets_hash` ON `secrets` (`hash`);--> statement-breakpoint
CREATE INDEX `secrets_owner` ON `secrets` (`owner_kind`,`owner_id`);--> statement-breakpoint
CREATE INDEX `secrets_start` ON `secrets` (`start`,`owner_id`);--> statement-breakpoint
CREATE TABLE `signing_keys` (
	`kid` text PRIMARY KEY NOT NULL,
	`alg` text NOT NULL,
	`state` text NOT NULL,
	`public_jwk` text NOT NULL,
	`sealed_private_jwk` blob NOT NULL,
	`created_at` integer NOT NULL,
	`activated_at` integer,
	`retired_at` integer,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE INDEX `signing_keys_state` ON `signing_keys` (`state`);--> statement-breakpoint
CREATE TABLE `usage` (
	`credential_id` text NOT NULL,
	`hour` integer NOT NULL,
	`valid_count` integer NOT NULL,
	`refused_count` integer NOT NULL,
	PRIMARY KEY(`credential_id`, `hour`)
);
--> statement-breakpoint
CREATE TABLE `webhook_cursor` (
	`id` integer PRIMARY KEY NOT NULL,
	`event_seq` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `webhook_endpoints` (
	`id` text PRIMARY KEY NOT NULL,
	`url` text NOT NULL,
	`description` text,
	`event_types` text NOT NULL,
	`enabled` integer NOT NULL,
	`sealed_secret` blob NOT NULL,
	`created_seq` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `webhook_endpoints_created_at` ON `webhook_endpoints` (`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `wrapped_keys` (
	`purpose` text NOT NULL,
	`version` integer NOT NULL,
	`wrapped` blob NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`purpose`, `version`)
);
