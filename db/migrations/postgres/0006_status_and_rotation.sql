CREATE TABLE "status_lists" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"seed" "bytea" NOT NULL,
	"blocks_taken" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "rotation_period_seconds" bigint;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "rotation_expires" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "m2m_tokens" ADD COLUMN "status_list_id" text collate "C";--> statement-breakpoint
ALTER TABLE "m2m_tokens" ADD COLUMN "status_index" bigint;--> statement-breakpoint
ALTER TABLE "machines" ADD COLUMN "rotation_period_seconds" bigint;--> statement-breakpoint
ALTER TABLE "machines" ADD COLUMN "rotation_expires" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "rotation_period_seconds" bigint;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "rotation_expires" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "rotate_by" bigint;--> statement-breakpoint
CREATE INDEX "status_lists_blocks_taken" ON "status_lists" USING btree ("blocks_taken","id");--> statement-breakpoint
CREATE UNIQUE INDEX "m2m_tokens_status" ON "m2m_tokens" USING btree ("status_list_id","status_index") WHERE status_list_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "secrets_rotate_by" ON "secrets" USING btree ("rotate_by","id") WHERE rotate_by IS NOT NULL;