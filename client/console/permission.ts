/** What the session may do: what it may not is not offered. */
import { useQueryClient } from '@tanstack/react-query';
import { type ACCESS, whoMayCall } from '../../server/access.ts';
import type { Session } from './countersign.ts';
import { SESSION } from './session.tsx';

/** Whether the role of who is signed in may call a procedure. The server decides; this only spares people the refusal. */
export function useMayCall(): (procedure: keyof typeof ACCESS) => boolean {
  const session = useQueryClient().getQueryData<Session>(SESSION);
  return (procedure) => session !== undefined && whoMayCall(procedure).includes(session.role);
}
