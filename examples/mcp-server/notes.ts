/** The tools of the MCP server: notes, of which everybody has their own. */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { z } from 'zod';

/** What an agent may be allowed, and what each tool takes of it. */
export const SCOPES = ['notes:read', 'notes:write'] as const;

export const TOOL_SCOPES = {
  list_notes: ['notes:read'],
  add_note: ['notes:read', 'notes:write'],
} as const satisfies Record<string, readonly (typeof SCOPES)[number][]>;

type ToolName = keyof typeof TOOL_SCOPES;

const NOTES_MAX = 100;
const NOTE_LENGTH_MAX = 1_000;

/** An MCP server for one request, by somebody who has these notes. */
export function createNotesServer(notes: string[]): McpServer {
  const server = new McpServer({ name: 'notes', version: '1.0.0' });
  server.registerTool(
    'list_notes' satisfies ToolName,
    { description: 'Lists your notes, the oldest first', annotations: { readOnlyHint: true } },
    () => answer(notes.length === 0 ? 'No notes' : notes.join('\n')),
  );
  server.registerTool(
    'add_note' satisfies ToolName,
    {
      description: 'Adds a note to yours',
      inputSchema: { text: z.string().min(1).max(NOTE_LENGTH_MAX) },
      annotations: { destructiveHint: false },
    },
    ({ text }) => {
      if (notes.length >= NOTES_MAX) return { ...answer(`There may be ${NOTES_MAX} notes`), isError: true };
      notes.push(text);
      return answer(`There are ${notes.length} notes`);
    },
  );
  return server;
}

const answer = (text: string) => ({ content: [{ type: 'text' as const, text }] });
