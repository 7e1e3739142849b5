ALTER TABLE `m2m_tokens` ADD `signing_kid` text;--> statement-breakpoint
CREATE INDEX `m2m_tokens_signing_kid_expires_at` ON `m2m_tokens` (`signing_kid`,`expires_at`) WHERE format = 'jwt';--> statement-breakpoint
CREATE UNIQUE INDEX `signing_keys_one_active` ON `signing_keys` (`state`) WHERE state = 'active';