DROP INDEX `deliveries_due`;--> statement-breakpoint
ALTER TABLE `deliveries` ADD `claimed_at` integer;--> statement-breakpoint
CREATE INDEX `deliveries_owed` ON `deliveries` (`endpoint_id`,`priority`,`next_at`) WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX `deliveries_claimed` ON `deliveries` (`endpoint_id`,`next_at`) WHERE claimed_at is not null;