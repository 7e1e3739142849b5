import { ACTOR_KINDS, EVENT_TYPES, REVOCATIONS } from '../server/domain/event-types.ts';

type Types = keyof typeof EVENT_TYPES;

/** `docs/events.md`, from the one table of types. */
export function eventsPage(): string {
  return `# Events

<!-- Generated from server/domain/event-types.ts by \`npm run docs\`. -->

Every administrative change is one event. [Webhooks](webhooks.md) carry it as \`{ type, timestamp, data }\`; beside the
fields of its type, \`data\` always has these:

| field | |
| --- | --- |
| \`eventId\` | \`evt_…\`, also the header \`webhook-id\`: the same over all attempts |
| \`sequence\` | its place in the log, without gaps, in the order of commits; deliveries may arrive in another |
| \`objectId\` | the id of the thing changed; for a cascade, what its selector names |
| \`subject\` | on whose behalf the changed credential acts, or null |
| \`actor\` | \`{ kind }\`, one of ${ACTOR_KINDS.map((kind) => `\`${kind}\``).join(', ')} |

An \`instant\` is milliseconds since 1970-01-01 UTC. Types marked *revocation* go ahead of all others: something that
verified before may no longer. \`denyUntil\` says until when to deny what was taken away, null for ever or until an event
gives it back. A revocation without it takes a value, a limit or a right of something that goes on: what was remembered of
that is to be asked for again. Fields may be added to a type; an event that would be larger than 20 kB has none of its own
but \`truncated: true\`.

${(Object.keys(EVENT_TYPES) as Types[]).map(sectionOf).join('\n')}`;
}

function sectionOf(type: Types): string {
  const { when, payload, example } = EVENT_TYPES[type];
  const fields = Object.entries(payload).map(
    ([name, held]) => `\`${name.replace('?', '')}\`: ${held}${name.endsWith('?') ? ', at times' : ''}`,
  );
  const list = fields.length > 0 ? `\n${fields.map((field) => `- ${field}`).join('\n')}\n` : '';
  return `## \`${type}\`

${when}.${REVOCATIONS.has(type) ? ' *Revocation.*' : ''}
${list}
\`\`\`json
${JSON.stringify({ type, data: example }, null, 2)}
\`\`\`
`;
}
