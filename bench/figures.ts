/** What is measured. */
import { measureMintEs256, measureMintOpaque } from './figures/mint.ts';
import { measureTiming } from './figures/timing.ts';
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
  { name: 'verify-postgres', measure: measureVerifyPostgres },
  { name: 'mint-opaque', measure: measureMintOpaque },
  { name: 'mint-es256', measure: measureMintEs256 },
  { name: 'timing', measure: measureTiming },
  { name: 'verify-10m', measure: measureVerify10m, onlyNamed: true },
];
