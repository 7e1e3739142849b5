/** What is measured. */
import { measureConsole } from './figures/console.ts';
import {
  measureDeliveries,
  measureDeliveriesBullmq,
  measureDeliveriesOneHanging,
} from './figures/deliveries.ts';
import { measureMintEs256, measureMintOpaque } from './figures/mint.ts';
import {
  measureOauthCodeFlow,
  measureOauthEs256,
  measureOauthIntrospect,
  measureOauthOpaque,
} from './figures/oauth.ts';
import {
  measureRevocations,
  measureRevocationsBullmq,
  measureRevocationsWhileMinting,
} from './figures/revocations.ts';
import { measureSweep } from './figures/sweep.ts';
import { measureTiming } from './figures/timing.ts';
import { measureVerifier } from './figures/verifier.ts';
import { measureVerify } from './figures/verify.ts';
import { measureVerify10m } from './figures/verify-10m.ts';
import { measureVerifyClient } from './figures/verify-client.ts';
import { measureVerifyPostgres } from './figures/verify-postgres.ts';
import type { Result } from './results.ts';

interface Figure {
  name: string;
  measure(): Promise<Result[]>;
  /** Takes many minutes and gigabytes: measured only by its name. */
  onlyNamed?: true;
}

export const FIGURES: readonly Figure[] = [
  { name: 'verify', measure: measureVerify },
  { name: 'verify-client', measure: measureVerifyClient },
  { name: 'verifier', measure: measureVerifier },
  { name: 'verify-postgres', measure: measureVerifyPostgres },
  { name: 'mint-opaque', measure: measureMintOpaque },
  { name: 'mint-es256', measure: measureMintEs256 },
  { name: 'oauth-opaque', measure: measureOauthOpaque },
  { name: 'oauth-es256', measure: measureOauthEs256 },
  { name: 'oauth-introspect', measure: measureOauthIntrospect },
  { name: 'oauth-code-flow', measure: measureOauthCodeFlow },
  { name: 'timing', measure: measureTiming },
  { name: 'revocations', measure: measureRevocations },
  { name: 'revocations-bullmq', measure: measureRevocationsBullmq },
  { name: 'revocations-while-minting', measure: measureRevocationsWhileMinting },
  { name: 'deliveries', measure: measureDeliveries },
  { name: 'deliveries-bullmq', measure: measureDeliveriesBullmq },
  { name: 'deliveries-one-hanging', measure: measureDeliveriesOneHanging },
  { name: 'sweep', measure: measureSweep },
  { name: 'console', measure: measureConsole },
  { name: 'verify-10m', measure: measureVerify10m, onlyNamed: true },
];
