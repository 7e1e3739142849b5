CREATE TABLE "panel_issuers" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"issuer" text collate "C" NOT NULL,
	"jwks_url" text collate "C" NOT NULL,
	"audience" text collate "C",
	"authorized_parties" text,
	"organization_claim" text collate "C",
	"role_claim" text collate "C",
	"manage_roles" text NOT NULL,
	"scope_ceiling" text,
	"policy_id" text collate "C",
	"created_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "panel_tokens" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"secret_key_id" text collate "C" NOT NULL,
	"subject" text collate "C" NOT NULL,
	"created_by" text collate "C",
	"actions" text NOT NULL,
	"scope_ceiling" text,
	"policy_id" text collate "C",
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX "panel_issuers_issuer" ON "panel_issuers" USING btree ("issuer");--> statement-breakpoint
CREATE UNIQUE INDEX "panel_tokens_hash" ON "panel_tokens" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "panel_tokens_secret_key_id" ON "panel_tokens" USING btree ("secret_key_id");--> statement-breakpoint
CREATE INDEX "panel_tokens_expires_at" ON "panel_tokens" USING btree ("expires_at","id");