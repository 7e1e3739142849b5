/** One description of a schema, made of what Drizzle built and of what is really in a database of either dialect. */
import type { Database } from 'better-sqlite3';
import { getTableName, type SQL, type Table } from 'drizzle-orm';
import { PgDialect, getTableConfig as pgConfig } from 'drizzle-orm/pg-core';
import { SQLiteSyncDialect, type SQLiteTable, getTableConfig as sqliteConfig } from 'drizzle-orm/sqlite-core';
import type { Client } from 'pg';
import { pgKit, sqliteKit } from '../../db/kit.ts';
import { buildTables } from '../../db/schema.ts';

export interface TableDescription {
  /** Type and nullability. SQLite's storage classes are the coarser, so both dialects are described in them. */
  columns: Record<string, string>;
  primaryKey: string[];
  /** Columns, uniqueness and condition. */
  indexes: Record<string, string>;
  /** Without their names, which SQLite does not keep. */
  foreignKeys: string[];
}

export type SchemaDescription = Record<string, TableDescription>;

interface BuiltColumn {
  name: string;
  notNull: boolean;
  primary: boolean;
  dataType: string;
  getSQLType(): string;
}

/** What both dialects' table configurations have in common. */
interface BuiltTable {
  name: string;
  columns: BuiltColumn[];
  primaryKeys: { columns: BuiltColumn[] }[];
  indexes: { config: { name?: string; columns: unknown[]; unique: boolean; where?: SQL } }[];
  foreignKeys: {
    onDelete?: string | undefined;
    reference(): { columns: BuiltColumn[]; foreignTable: Table; foreignColumns: BuiltColumn[] };
  }[];
}

export function builtTables(dialect: 'sqlite' | 'postgres'): BuiltTable[] {
  return dialect === 'postgres'
    ? (Object.values(buildTables(pgKit)).map((table) => pgConfig(table)) as unknown as BuiltTable[])
    : (Object.values(buildTables(sqliteKit)).map((table) =>
        sqliteConfig(table as unknown as SQLiteTable),
      ) as unknown as BuiltTable[]);
}

const toSql = {
  postgres: (where: SQL) => new PgDialect().sqlToQuery(where).sql,
  sqlite: (where: SQL) => new SQLiteSyncDialect().sqlToQuery(where).sql,
};

const STORAGE: Record<string, string> = {
  'text collate "C"': 'text',
  bigint: 'integer',
  boolean: 'integer',
  bytea: 'blob',
};

const column = (type: string, nullable: boolean) => `${STORAGE[type] ?? type}${nullable ? '' : ' not null'}`;

const index = (columns: readonly string[], unique: boolean, where: string | null | undefined) =>
  `${unique ? 'unique ' : ''}(${columns})${where ? ` where ${condition(where)}` : ''}`;

/** `((state = 'pending'::text))` and `IS NOT NULL` are PostgreSQL's ways to say `state = 'pending'` and `is not null`. */
const condition = (where: string) =>
  where
    .replace(/::text|[()"]/g, '')
    .replace(/ IS (NOT )?NULL/, (words) => words.toLowerCase())
    .trim();

const foreignKey = (
  columns: readonly string[],
  table: string,
  foreignColumns: readonly string[],
  onDelete: string,
) => `(${columns}) → ${table} (${foreignColumns}) on delete ${onDelete.toLowerCase()}`;

const names = (columns: readonly { name: string }[]) => columns.map(({ name }) => name);

export function describeBuilt(dialect: 'sqlite' | 'postgres'): SchemaDescription {
  return Object.fromEntries(
    builtTables(dialect).map((table) => [
      table.name,
      {
        columns: Object.fromEntries(table.columns.map((c) => [c.name, column(c.getSQLType(), !c.notNull)])),
        primaryKey: names(table.primaryKeys[0]?.columns ?? table.columns.filter((c) => c.primary)),
        indexes: Object.fromEntries(
          table.indexes.map(({ config: { name, columns, unique, where } }) => [
            name,
            index(names(columns as BuiltColumn[]), unique, where && toSql[dialect](where)),
          ]),
        ),
        foreignKeys: table.foreignKeys
          .map((key) => {
            const { columns, foreignTable, foreignColumns } = key.reference();
            const onDelete = key.onDelete ?? 'no action';
            return foreignKey(names(columns), getTableName(foreignTable), names(foreignColumns), onDelete);
          })
          .sort(),
      },
    ]),
  );
}

/** The bookkeeping of drizzle's migrator is no part of the schema. */
const MIGRATOR = '__drizzle_migrations';

export function describeSqlite(db: Database): SchemaDescription {
  const all = <T>(sql: string, ...parameters: string[]) => db.prepare(sql).all(...parameters) as T[];
  const tables = all<{ name: string }>(
    `select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' and name <> ?`,
    MIGRATOR,
  );
  return Object.fromEntries(tables.map(({ name }) => [name, describeSqliteTable(name, all)]));
}

function describeSqliteTable(
  table: string,
  all: <T>(sql: string, ...parameters: string[]) => T[],
): TableDescription {
  const columns = all<{ name: string; type: string; notnull: number; pk: number }>(
    'select * from pragma_table_info(?)',
    table,
  );
  const indexes = all<{ name: string; unique: number; sql: string }>(
    `select l.name, l."unique", s.sql from pragma_index_list(?) l join sqlite_schema s on s.name = l.name
     where l.origin = 'c'`,
    table,
  );
  const keys = all<{ table: string; columns: string; foreign: string; onDelete: string }>(
    `select "table", group_concat("from") as columns, group_concat("to") as "foreign", on_delete as onDelete
     from pragma_foreign_key_list(?) group by id, "table", on_delete`,
    table,
  );
  return {
    columns: Object.fromEntries(columns.map((c) => [c.name, column(c.type.toLowerCase(), c.notnull === 0)])),
    primaryKey: names(columns.filter((c) => c.pk > 0).sort((a, b) => a.pk - b.pk)),
    indexes: Object.fromEntries(
      indexes.map(({ name, unique, sql }) => {
        const of = names(all<{ name: string }>('select name from pragma_index_info(?) order by seqno', name));
        return [name, index(of, unique === 1, / where (.*)$/i.exec(sql)?.[1])];
      }),
    ),
    foreignKeys: keys
      .map((key) => foreignKey(key.columns.split(','), key.table, key.foreign.split(','), key.onDelete))
      .sort(),
  };
}

export async function describePostgres(client: Client): Promise<SchemaDescription> {
  const all = async <T>(sql: string, ...parameters: string[]) =>
    (await client.query<T & object>(sql, parameters)).rows as T[];
  const tables = await all<{ name: string }>(
    `select table_name as name from information_schema.tables where table_schema = 'public' and table_name <> $1`,
    MIGRATOR,
  );
  const described: SchemaDescription = {};
  for (const { name } of tables) described[name] = await describePostgresTable(name, all);
  return described;
}

const PG_NO_ACTION = 'a';

async function describePostgresTable(
  table: string,
  all: <T>(sql: string, ...parameters: string[]) => Promise<T[]>,
): Promise<TableDescription> {
  const columns = await all<{ name: string; type: string; nullable: boolean }>(
    `select column_name as name, data_type as type, is_nullable = 'YES' as nullable
     from information_schema.columns where table_schema = 'public' and table_name = $1 order by ordinal_position`,
    table,
  );
  const indexes = await all<{
    name: string;
    unique: boolean;
    primary: boolean;
    columns: string[];
    where: string | null;
  }>(
    `select c.relname as name, i.indisunique as unique, i.indisprimary as primary, pg_get_expr(i.indpred, i.indrelid) as where,
       array(select a.attname::text from unnest(i.indkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n order by k.o) as columns
     from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = ('public.' || quote_ident($1))::regclass`,
    table,
  );
  const keys = await all<{ columns: string[]; table: string; foreign: string[]; onDelete: string }>(
    `select c.confrelid::regclass::text as table, c.confdeltype as "onDelete",
       array(select attname::text from pg_attribute where attrelid = c.conrelid and attnum = any(c.conkey)) as columns,
       array(select attname::text from pg_attribute where attrelid = c.confrelid and attnum = any(c.confkey)) as "foreign"
     from pg_constraint c where c.contype = 'f' and c.conrelid = ('public.' || quote_ident($1))::regclass`,
    table,
  );
  return {
    columns: Object.fromEntries(columns.map((c) => [c.name, column(c.type, c.nullable)])),
    primaryKey: indexes.find((each) => each.primary)?.columns ?? [],
    indexes: Object.fromEntries(
      indexes
        .filter((each) => !each.primary)
        .map((each) => [each.name, index(each.columns, each.unique, each.where)]),
    ),
    foreignKeys: keys
      .map((key) =>
        foreignKey(
          key.columns,
          key.table,
          key.foreign,
          key.onDelete === PG_NO_ACTION ? 'no action' : key.onDelete,
        ),
      )
      .sort(),
  };
}
