CREATE TABLE "delivery_attempts" (
	"delivery_id" text collate "C" NOT NULL,
	"attempt" bigint NOT NULL,
	"began_at" bigint NOT NULL,
	"ended_at" bigint NOT NULL,
	"status" bigint,
	"error" text collate "C",
	"response" text collate "C",
	CONSTRAINT "delivery_attempts_delivery_id_attempt_pk" PRIMARY KEY("delivery_id","attempt")
);
--> statement-breakpoint
CREATE TABLE "event_anchor" (
	"id" bigint PRIMARY KEY NOT NULL,
	"seq" bigint NOT NULL,
	"hash" "bytea" NOT NULL,
	"at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "event_checkpoints" (
	"seq" bigint PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"at" bigint NOT NULL,
	"jws" text collate "C" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "expiry_notices" (
	"owner_kind" text collate "C" NOT NULL,
	"owner_id" text collate "C" NOT NULL,
	"notice" text collate "C" NOT NULL,
	"created_at" bigint NOT NULL,
	CONSTRAINT "expiry_notices_owner_kind_owner_id_notice_pk" PRIMARY KEY("owner_kind","owner_id","notice")
);
--> statement-breakpoint
CREATE TABLE "jobs" (
	"name" text collate "C" PRIMARY KEY NOT NULL,
	"holder" text collate "C",
	"lease_expires_at" bigint,
	"next_at" bigint NOT NULL,
	"cursor" text,
	"failures" bigint NOT NULL,
	"last_started_at" bigint,
	"last_succeeded_at" bigint,
	"last_failed_at" bigint,
	"last_error" text collate "C"
);
--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "subjects" text;--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "disabled_reason" text collate "C";--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "sealed_previous_secret" "bytea";--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "previous_secret_expires_at" bigint;--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "sealed_signing_key" "bytea";--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "public_key" text collate "C";--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "failing_since" bigint;--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "last_success_at" bigint;--> statement-breakpoint
ALTER TABLE "webhook_endpoints" ADD COLUMN "throttled_until" bigint;--> statement-breakpoint
CREATE INDEX "delivery_attempts_ended_at" ON "delivery_attempts" USING btree ("ended_at");--> statement-breakpoint
CREATE INDEX "expiry_notices_created_at" ON "expiry_notices" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "api_keys_expires_at" ON "api_keys" USING btree ("expires_at","id") WHERE expires_at IS NOT NULL;--> statement-breakpoint
CREATE INDEX "deliveries_created_at" ON "deliveries" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "events_type" ON "events" USING btree ("type","seq");--> statement-breakpoint
CREATE INDEX "events_actor" ON "events" USING btree ("actor_id","seq");--> statement-breakpoint
CREATE INDEX "events_object" ON "events" USING btree ("object_id","seq");--> statement-breakpoint
CREATE INDEX "events_subject" ON "events" USING btree ("subject","seq");--> statement-breakpoint
CREATE INDEX "events_at" ON "events" USING btree ("at","seq");--> statement-breakpoint
CREATE INDEX "m2m_tokens_expires_at" ON "m2m_tokens" USING btree ("expires_at","id");--> statement-breakpoint
CREATE INDEX "secret_keys_expires_at" ON "secret_keys" USING btree ("expires_at") WHERE expires_at IS NOT NULL;