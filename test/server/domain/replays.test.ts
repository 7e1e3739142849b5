import { describe, expect, it } from 'vitest';
import { REVOCATIONS } from '../../../server/domain/event-types.ts';
import { isHeeded } from '../../../server/domain/replays.ts';

describe('replaying a log', () => {
  it('does again, or tells of, every type of event that takes something away', () => {
    expect([...REVOCATIONS].filter((type) => !isHeeded(type))).toEqual([]);
  });

  it('passes over what gives', () => {
    expect((['api_key.created', 'api_key.enabled', 'machine.created'] as const).filter(isHeeded)).toEqual([]);
  });
});
