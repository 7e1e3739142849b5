CREATE TABLE "api_keys" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"subject" text collate "C" NOT NULL,
	"name" text collate "C" NOT NULL,
	"live_name" text collate "C",
	"description" text collate "C",
	"scopes" text NOT NULL,
	"claims" text,
	"created_by" text collate "C",
	"enabled" boolean NOT NULL,
	"expires_at" bigint,
	"revoked_at" bigint,
	"revocation_reason" text collate "C",
	"revocation_note" text collate "C",
	"last_used_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "deliveries" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"event_seq" bigint NOT NULL,
	"endpoint_id" text collate "C" NOT NULL,
	"state" text collate "C" NOT NULL,
	"priority" bigint NOT NULL,
	"attempt" bigint NOT NULL,
	"next_at" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"first_attempt_at" bigint,
	"delivered_at" bigint,
	"last_status" bigint,
	"last_error" text collate "C"
);
--> statement-breakpoint
CREATE TABLE "event_head" (
	"id" bigint PRIMARY KEY NOT NULL,
	"seq" bigint NOT NULL,
	"hash" "bytea" NOT NULL,
	"at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "events" (
	"seq" bigint PRIMARY KEY NOT NULL,
	"id" text collate "C" NOT NULL,
	"at" bigint NOT NULL,
	"type" text collate "C" NOT NULL,
	"actor_kind" text collate "C" NOT NULL,
	"actor_id" text collate "C" NOT NULL,
	"object_id" text collate "C" NOT NULL,
	"subject" text collate "C",
	"request_id" text collate "C" NOT NULL,
	"data" text NOT NULL,
	"hash" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "installation" (
	"id" bigint PRIMARY KEY NOT NULL,
	"epoch" text collate "C" NOT NULL,
	"master_key_check" "bytea" NOT NULL,
	"oldest_binary" bigint NOT NULL,
	"created_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "m2m_tokens" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"machine_id" text collate "C" NOT NULL,
	"format" text collate "C" NOT NULL,
	"hash" "bytea",
	"pepper_version" bigint,
	"secret_id" text collate "C" NOT NULL,
	"generation" bigint NOT NULL,
	"audience" text NOT NULL,
	"scopes" text NOT NULL,
	"claims" text,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"revoked_at" bigint,
	"revocation_reason" text collate "C",
	"last_used_at" bigint
);
--> statement-breakpoint
CREATE TABLE "machine_scopes" (
	"from_machine_id" text collate "C" NOT NULL,
	"to_machine_id" text collate "C" NOT NULL,
	"scopes" text NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	CONSTRAINT "machine_scopes_from_machine_id_to_machine_id_pk" PRIMARY KEY("from_machine_id","to_machine_id")
);
--> statement-breakpoint
CREATE TABLE "machines" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text collate "C" NOT NULL,
	"description" text collate "C",
	"enabled" boolean NOT NULL,
	"default_token_ttl_seconds" bigint NOT NULL,
	"max_token_ttl_seconds" bigint NOT NULL,
	"may_verify" boolean NOT NULL,
	"token_generation" bigint NOT NULL,
	"tokens_revoked_at" bigint,
	"last_used_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "secret_keys" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text collate "C" NOT NULL,
	"role" text collate "C" NOT NULL,
	"bootstrap" boolean NOT NULL,
	"expires_at" bigint,
	"revoked_at" bigint,
	"last_used_at" bigint,
	"created_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "secrets" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"owner_kind" text collate "C" NOT NULL,
	"owner_id" text collate "C" NOT NULL,
	"hash" "bytea" NOT NULL,
	"pepper_version" bigint NOT NULL,
	"start" text collate "C" NOT NULL,
	"mac" "bytea",
	"created_at" bigint NOT NULL,
	"expires_at" bigint,
	"revoked_at" bigint
);
--> statement-breakpoint
CREATE TABLE "signing_keys" (
	"kid" text collate "C" PRIMARY KEY NOT NULL,
	"alg" text collate "C" NOT NULL,
	"state" text collate "C" NOT NULL,
	"public_jwk" text NOT NULL,
	"sealed_private_jwk" "bytea" NOT NULL,
	"created_at" bigint NOT NULL,
	"activated_at" bigint,
	"retired_at" bigint,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "usage" (
	"credential_id" text collate "C" NOT NULL,
	"hour" bigint NOT NULL,
	"valid_count" bigint NOT NULL,
	"refused_count" bigint NOT NULL,
	CONSTRAINT "usage_credential_id_hour_pk" PRIMARY KEY("credential_id","hour")
);
--> statement-breakpoint
CREATE TABLE "webhook_cursor" (
	"id" bigint PRIMARY KEY NOT NULL,
	"event_seq" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "webhook_endpoints" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"url" text collate "C" NOT NULL,
	"description" text collate "C",
	"event_types" text NOT NULL,
	"enabled" boolean NOT NULL,
	"sealed_secret" "bytea" NOT NULL,
	"created_seq" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "wrapped_keys" (
	"purpose" text collate "C" NOT NULL,
	"version" bigint NOT NULL,
	"wrapped" "bytea" NOT NULL,
	"created_at" bigint NOT NULL,
	CONSTRAINT "wrapped_keys_purpose_version_pk" PRIMARY KEY("purpose","version")
);
--> statement-breakpoint
ALTER TABLE "machine_scopes" ADD CONSTRAINT "machine_scopes_from_fk" FOREIGN KEY ("from_machine_id") REFERENCES "public"."machines"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "machine_scopes" ADD CONSTRAINT "machine_scopes_to_fk" FOREIGN KEY ("to_machine_id") REFERENCES "public"."machines"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "api_keys_subject_live_name" ON "api_keys" USING btree ("subject","live_name");--> statement-breakpoint
CREATE INDEX "api_keys_subject_created_at" ON "api_keys" USING btree ("subject","created_at","id");--> statement-breakpoint
CREATE INDEX "api_keys_name" ON "api_keys" USING btree ("name","created_at","id");--> statement-breakpoint
CREATE INDEX "api_keys_created_at" ON "api_keys" USING btree ("created_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "deliveries_event_endpoint" ON "deliveries" USING btree ("event_seq","endpoint_id");--> statement-breakpoint
CREATE INDEX "deliveries_due" ON "deliveries" USING btree ("priority","next_at") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "deliveries_endpoint" ON "deliveries" USING btree ("endpoint_id","event_seq");--> statement-breakpoint
CREATE UNIQUE INDEX "events_id" ON "events" USING btree ("id");--> statement-breakpoint
CREATE UNIQUE INDEX "m2m_tokens_hash" ON "m2m_tokens" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "m2m_tokens_machine_created_at" ON "m2m_tokens" USING btree ("machine_id","created_at","id");--> statement-breakpoint
CREATE INDEX "machine_scopes_to" ON "machine_scopes" USING btree ("to_machine_id","from_machine_id");--> statement-breakpoint
CREATE UNIQUE INDEX "machines_name" ON "machines" USING btree ("name");--> statement-breakpoint
CREATE INDEX "machines_created_at" ON "machines" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "secret_keys_created_at" ON "secret_keys" USING btree ("created_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "secrets_hash" ON "secrets" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "secrets_owner" ON "secrets" USING btree ("owner_kind","owner_id");--> statement-breakpoint
CREATE INDEX "secrets_start" ON "secrets" USING btree ("start","owner_id");--> statement-breakpoint
CREATE INDEX "signing_keys_state" ON "signing_keys" USING btree ("state");--> statement-breakpoint
CREATE INDEX "webhook_endpoints_created_at" ON "webhook_endpoints" USING btree ("created_at","id");