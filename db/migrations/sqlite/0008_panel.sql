CREATE TABLE `panel_issuers` (
	`id` text PRIMARY KEY NOT NULL,
	`issuer` text NOT NULL,
	`jwks_url` text NOT NULL,
	`audience` text,
	`authorized_parties` text,
	`organization_claim` text,
	`role_claim` text,
	`manage_roles` text NOT NULL,
	`scope_ceiling` text,
	`policy_id` text,
	`created_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `panel_issuers_issuer` ON `panel_issuers` (`issuer`);--> statement-breakpoint
CREATE TABLE `panel_tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`hash` blob NOT NULL,
	`secret_key_id` text NOT NULL,
	`subject` text NOT NULL,
	`created_by` text,
	`actions` text NOT NULL,
	`scope_ceiling` text,
	`policy_id` text,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`mac` blob NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `panel_tokens_hash` ON `panel_tokens` (`hash`);--> statement-breakpoint
CREATE INDEX `panel_tokens_secret_key_id` ON `panel_tokens` (`secret_key_id`);--> statement-breakpoint
CREATE INDEX `panel_tokens_expires_at` ON `panel_tokens` (`expires_at`,`id`);