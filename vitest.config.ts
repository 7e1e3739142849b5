import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** What waits longer than it works: two of them at once have a core stand idle, and so has one that is begun last. */
const WAITS = /\/test\/(crash|race|failures|client\/verifier|workers|oauth\/crash)/;

class WaitsAmongWork extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const waiting = sorted.filter(({ moduleId }) => WAITS.test(moduleId));
    const working = sorted.filter(({ moduleId }) => !WAITS.test(moduleId));
    const between = Math.floor(working.length / Math.max(waiting.length, 1));
    return [...waiting.flatMap((file) => [file, ...working.splice(0, between)]), ...working];
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/services.ts'],
    setupFiles: ['test/support/leaks.ts'],
    reporters: ['default', './test/support/reporter.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores: more processes than that only wait for each other.
    maxWorkers: 2,
    sequence: { sequencer: WaitsAmongWork },
  },
});
