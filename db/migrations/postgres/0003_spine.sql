CREATE TABLE "credits" (
	"owner_kind" text collate "C" NOT NULL,
	"owner_id" text collate "C" NOT NULL,
	"remaining" bigint NOT NULL,
	"refill_amount" bigint,
	"refill_interval_seconds" bigint,
	"refilled_at" bigint NOT NULL,
	CONSTRAINT "credits_owner_kind_owner_id_pk" PRIMARY KEY("owner_kind","owner_id")
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"principal_id" text collate "C" NOT NULL,
	"procedure" text collate "C" NOT NULL,
	"key" text collate "C" NOT NULL,
	"input_hash" "bytea" NOT NULL,
	"answer" text NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	CONSTRAINT "idempotency_keys_principal_id_procedure_key_pk" PRIMARY KEY("principal_id","procedure","key")
);
--> statement-breakpoint
CREATE TABLE "imported_shapes" (
	"owner_kind" text collate "C" NOT NULL,
	"prefix" text collate "C" NOT NULL,
	"length" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	CONSTRAINT "imported_shapes_owner_kind_prefix_length_pk" PRIMARY KEY("owner_kind","prefix","length")
);
--> statement-breakpoint
CREATE TABLE "key_policies" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text collate "C" NOT NULL,
	"description" text collate "C",
	"is_default" boolean NOT NULL,
	"prefix" text collate "C",
	"allowed_scopes" text,
	"default_ttl_seconds" bigint,
	"max_ttl_seconds" bigint,
	"live_keys_max" bigint,
	"rate_limit" bigint,
	"rate_limit_window_seconds" bigint,
	"credits" bigint,
	"refill_amount" bigint,
	"refill_interval_seconds" bigint,
	"retention_seconds" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "key_prefixes" (
	"prefix" text collate "C" PRIMARY KEY NOT NULL,
	"description" text collate "C",
	"created_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "m2m_token_counts" (
	"machine_id" text collate "C" NOT NULL,
	"expires_hour" bigint NOT NULL,
	"count" bigint NOT NULL,
	CONSTRAINT "m2m_token_counts_machine_id_expires_hour_pk" PRIMARY KEY("machine_id","expires_hour")
);
--> statement-breakpoint
CREATE TABLE "subject_usage" (
	"subject" text collate "C" NOT NULL,
	"hour" bigint NOT NULL,
	"valid_count" bigint NOT NULL,
	"refused_count" bigint NOT NULL,
	CONSTRAINT "subject_usage_subject_hour_pk" PRIMARY KEY("subject","hour")
);
--> statement-breakpoint
CREATE TABLE "subjects" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"enabled" boolean NOT NULL,
	"rate_limit" bigint,
	"rate_limit_window_seconds" bigint,
	"has_credits" boolean NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "policy_id" text collate "C";--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "prefix" text collate "C" DEFAULT 'ak_' NOT NULL;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "rate_limit" bigint;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "rate_limit_window_seconds" bigint;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "has_credits" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "allowed_cidrs" text;--> statement-breakpoint
ALTER TABLE "machines" ADD COLUMN "allowed_cidrs" text;--> statement-breakpoint
ALTER TABLE "machines" ADD COLUMN "live_tokens_max" bigint DEFAULT 1000000 NOT NULL;--> statement-breakpoint
ALTER TABLE "machines" ADD COLUMN "mints_per_minute_max" bigint DEFAULT 60000 NOT NULL;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "allowed_cidrs" text;--> statement-breakpoint
ALTER TABLE "wrapped_keys" ADD COLUMN "state" text collate "C" DEFAULT 'active' NOT NULL;--> statement-breakpoint
CREATE INDEX "idempotency_keys_expires_at" ON "idempotency_keys" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "key_policies_name" ON "key_policies" USING btree ("name");--> statement-breakpoint
CREATE UNIQUE INDEX "key_policies_one_default" ON "key_policies" USING btree ("is_default") WHERE is_default;--> statement-breakpoint
CREATE INDEX "key_policies_created_at" ON "key_policies" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "subjects_created_at" ON "subjects" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "api_keys_policy_revoked_at" ON "api_keys" USING btree ("policy_id","revoked_at") WHERE revoked_at IS NOT NULL;--> statement-breakpoint
CREATE INDEX "api_keys_policy_expires_at" ON "api_keys" USING btree ("policy_id","expires_at") WHERE expires_at IS NOT NULL;