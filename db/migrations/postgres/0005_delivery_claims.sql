DROP INDEX "deliveries_due";--> statement-breakpoint
ALTER TABLE "deliveries" ADD COLUMN "claimed_at" bigint;--> statement-breakpoint
CREATE INDEX "deliveries_owed" ON "deliveries" USING btree ("endpoint_id","priority","next_at") WHERE state = 'pending';--> statement-breakpoint
CREATE INDEX "deliveries_claimed" ON "deliveries" USING btree ("endpoint_id","next_at") WHERE claimed_at is not null;