ALTER TABLE "m2m_tokens" ADD COLUMN "signing_kid" text collate "C";--> statement-breakpoint
CREATE INDEX "m2m_tokens_signing_kid_expires_at" ON "m2m_tokens" USING btree ("signing_kid","expires_at") WHERE format = 'jwt';--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_one_active" ON "signing_keys" USING btree ("state") WHERE state = 'active';