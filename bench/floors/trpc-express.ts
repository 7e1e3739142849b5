/** What most would write: a tRPC procedure on Express that looks the hash of a value up in a map. */
import { hash } from 'node:crypto';
import { createServer } from 'node:http';
import { initTRPC } from '@trpc/server';
import { createExpressMiddleware } from '@trpc/server/adapters/express';
import express from 'express';
import { z } from 'zod';
import { announce, givenAnswer, seedValues } from './floor.ts';

const known = new Set(seedValues().credentials.map((value) => hash('sha256', value)));
const answer = givenAnswer();
const t = initTRPC.create();
const router = t.router({
  verify: t.procedure
    .input(z.object({ credential: z.string() }))
    .mutation(({ input }) => (known.has(hash('sha256', input.credential)) ? answer : { valid: false })),
});
announce(createServer(express().use('/trpc', createExpressMiddleware({ router }))));
