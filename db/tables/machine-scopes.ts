import type { Kit } from '../kit.ts';
import type { machinesTable } from './machines.ts';

/** The edge from → to: whom a machine may call, and the scopes an admin allows on that way. */
export const machineScopesTable = (k: Kit, machines: ReturnType<typeof machinesTable>) =>
  k.table(
    'machine_scopes',
    {
      from_machine_id: k.str('from_machine_id').notNull(),
      to_machine_id: k.str('to_machine_id').notNull(),
      scopes: k.json<string[]>('scopes').notNull(),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [
      k.primaryKey({ columns: [t.from_machine_id, t.to_machine_id] }),
      k.index('machine_scopes_to').on(t.to_machine_id, t.from_machine_id),
      k.foreignKey({
        name: 'machine_scopes_from_fk',
        columns: [t.from_machine_id],
        foreignColumns: [machines.id],
      }),
      k.foreignKey({
        name: 'machine_scopes_to_fk',
        columns: [t.to_machine_id],
        foreignColumns: [machines.id],
      }),
    ],
  );
