CREATE TABLE `operator_sessions` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`secret_key_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`last_seen_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `operator_sessions_hash` ON `operator_sessions` (`hash`);--> statement-breakpoint
CREATE INDEX `operator_sessions_secret_key_id` ON `operator_sessions` (`secret_key_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `operator_sessions_expires_at` ON `operator_sessions` (`expires_at`);--> statement-breakpoint
CREATE TABLE `sign_in_links` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`secret_key_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `sign_in_links_hash` ON `sign_in_links` (`hash`);--> statement-breakpoint
CREATE INDEX `sign_in_links_secret_key_id` ON `sign_in_links` (`secret_key_id`);--> statement-breakpoint
CREATE INDEX `sign_in_links_expires_at` ON `sign_in_links` (`expires_at`);