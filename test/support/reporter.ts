import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * Closes the run with counts on one line, after the reasons of what was skipped. A file that cannot be loaded and an
 * error outside any test count as failures, so that the line never reads better than the run was.
 */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string) => tests.filter((test) => test.result().state === state).length;
    const failed = count('failed') + modules.flatMap(brokenParts).length + unhandledErrors.length;
    const lines = [
      ...skips(tests),
      `${count('passed')} passed, ${failed} failed, ${count('skipped')} skipped`,
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  }
}

/** The file and its suites, where one of them failed by itself: while loading, or in a hook. */
function brokenParts(module: TestModule) {
  return [module, ...module.children.allSuites()].filter((part) => part.errors().length > 0);
}

function skips(tests: readonly TestCase[]): string[] {
  const counts = new Map<string, number>();
  for (const test of tests) {
    const result = test.result();
    if (result.state !== 'skipped') continue;
    const reason = result.note ?? titleReason(test) ?? 'no reason given';
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].map(([reason, skipped]) => `Skipped ${skipped}: ${reason}`);
}

/** What is skipped as a whole carries its reason in its title: `… [skipped: reason]`. */
function titleReason(test: TestCase): string | undefined {
  return /\[skipped: ([^\]]+)\]/.exec(test.fullName)?.[1];
}
