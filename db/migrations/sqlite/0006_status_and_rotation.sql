CREATE TABLE `status_lists` (
	`id` text PRIMARY KEY NOT NULL,
	`seed` blob NOT NULL,
	`blocks_taken` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `status_lists_blocks_taken` ON `status_lists` (`blocks_taken`,`id`);--> statement-breakpoint
ALTER TABLE `api_keys` ADD `rotation_period_seconds` integer;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `rotation_expires` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `m2m_tokens` ADD `status_list_id` text;--> statement-breakpoint
ALTER TABLE `m2m_tokens` ADD `status_index` integer;--> statement-breakpoint
CREATE UNIQUE INDEX `m2m_tokens_status` ON `m2m_tokens` (`status_list_id`,`status_index`) WHERE status_list_id IS NOT NULL;--> statement-breakpoint
ALTER TABLE `machines` ADD `rotation_period_seconds` integer;--> statement-breakpoint
ALTER TABLE `machines` ADD `rotation_expires` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `secret_keys` ADD `rotation_period_seconds` integer;--> statement-breakpoint
ALTER TABLE `secret_keys` ADD `rotation_expires` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `secrets` ADD `rotate_by` integer;--> statement-breakpoint
CREATE INDEX `secrets_rotate_by` ON `secrets` (`rotate_by`,`id`) WHERE rotate_by IS NOT NULL;