CREATE TABLE `delivery_attempts` (
	`delivery_id` text NOT NULL,
	`attempt` integer NOT NULL,
	`began_at` integer NOT NULL,
	`ended_at` integer NOT NULL,
	`status` integer,
	`error` text,
	`response` text,
	PRIMARY KEY(`delivery_id`, `attempt`)
);
--> statement-breakpoint
CREATE INDEX `delivery_attempts_ended_at` ON `delivery_attempts` (`ended_at`);--> statement-breakpoint
CREATE TABLE `event_anchor` (
	`id` integer PRIMARY KEY NOT NULL,
	`seq` integer NOT NULL,
	`hash` blob NOT NULL,
	`at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `event_checkpoints` (
	`seq` integer PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`at` integer NOT NULL,
	`jws` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `expiry_notices` (
	`owner_kind` text NOT NULL,
	`owner_id` text NOT NULL,
	`notice` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`owner_kind`, `owner_id`, `notice`)
);
--> statement-breakpoint
CREATE INDEX `expiry_notices_created_at` ON `expiry_notices` (`created_at`);--> statement-breakpoint
CREATE TABLE `jobs` (
	`name` text PRIMARY KEY NOT NULL,
	`holder` text,
	`lease_expires_at` integer,
	`next_at` integer NOT NULL,
	`cursor` text,
	`failures` integer NOT NULL,
	`last_started_at` integer,
	`last_succeeded_at` integer,
	`last_failed_at` integer,
	`last_error` text
);
--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `subjects` text;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `disabled_reason` text;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `sealed_previous_secret` blob;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `previous_secret_expires_at` integer;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `sealed_signing_key` blob;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `public_key` text;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `failing_since` integer;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `last_success_at` integer;--> statement-breakpoint
ALTER TABLE `webhook_endpoints` ADD `throttled_until` integer;--> statement-breakpoint
CREATE INDEX `api_keys_expires_at` ON `api_keys` (`expires_at`,`id`) WHERE expires_at IS NOT NULL;--> statement-breakpoint
CREATE INDEX `deliveries_created_at` ON `deliveries` (`created_at`);--> statement-breakpoint
CREATE INDEX `events_type` ON `events` (`type`,`seq`);--> statement-breakpoint
CREATE INDEX `events_actor` ON `events` (`actor_id`,`seq`);--> statement-breakpoint
CREATE INDEX `events_object` ON `events` (`object_id`,`seq`);--> statement-breakpoint
CREATE INDEX `events_subject` ON `events` (`subject`,`seq`);--> statement-breakpoint
CREATE INDEX `events_at` ON `events` (`at`,`seq`);--> statement-breakpoint
CREATE INDEX `m2m_tokens_expires_at` ON `m2m_tokens` (`expires_at`,`id`);--> statement-breakpoint
CREATE INDEX `secret_keys_expires_at` ON `secret_keys` (`expires_at`) WHERE expires_at IS NOT NULL;