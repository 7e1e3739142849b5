CREATE TABLE "operator_sessions" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"secret_key_id" text collate "C" NOT NULL,
	"created_at" bigint NOT NULL,
	"last_seen_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sign_in_links" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"hash" "bytea" NOT NULL,
	"secret_key_id" text collate "C" NOT NULL,
	"created_at" bigint NOT NULL,
	"expires_at" bigint NOT NULL,
	"mac" "bytea" NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX "operator_sessions_hash" ON "operator_sessions" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "operator_sessions_secret_key_id" ON "operator_sessions" USING btree ("secret_key_id","created_at","id");--> statement-breakpoint
CREATE INDEX "operator_sessions_expires_at" ON "operator_sessions" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "sign_in_links_hash" ON "sign_in_links" USING btree ("hash");--> statement-breakpoint
CREATE INDEX "sign_in_links_secret_key_id" ON "sign_in_links" USING btree ("secret_key_id");--> statement-breakpoint
CREATE INDEX "sign_in_links_expires_at" ON "sign_in_links" USING btree ("expires_at");