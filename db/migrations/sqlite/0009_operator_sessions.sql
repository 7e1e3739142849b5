DROP INDEX `operator_sessions_expires_at`;--> statement-breakpoint
CREATE INDEX `operator_sessions_expires_at_id` ON `operator_sessions` (`expires_at`,`id`);