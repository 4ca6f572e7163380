/** `quarry message …`: why accepted work failed. */
import type { Command } from 'commander';
import { withContext } from '../context.ts';
import { type Json, maybeText, member, members, text } from '../decode.ts';
import type { Row } from '../print.ts';

const LIST_COLUMNS = ['id', 'created', 'event', 'resource', 'message'];

function row(message: Json): Row {
  return {
    id: text(message, 'id'),
    created: text(message, 'created_at').slice(0, 19),
    level: text(message, 'message_level'),
    event: text(message, 'event_id'),
    resource: text(message, 'resource_uuid'),
    message: text(message, 'user_message'),
    request: maybeText(message, 'request_id'),
    until: text(message, 'guaranteed_until').slice(0, 19),
  };
}

const pathOf = (id: string): string => `/messages/${encodeURIComponent(id)}`;

export function registerMessage(program: Command): void {
  const message = program.command('message').description('why work failed that had been accepted');
  message
    .command('list')
    .description('list messages, newest first, at most a thousand')
    .option('--resource <id>', 'only those about this volume, snapshot or group')
    .action((flags: { resource?: string }, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const query = new URLSearchParams(flags.resource === undefined ? {} : { resource_uuid: flags.resource });
        const found = members(await client.get(`/messages?${query}`), 'messages');
        printer.list({ columns: LIST_COLUMNS, rows: found.map(row), raw: found });
      }),
    );
  message
    .command('show')
    .description('show one message')
    .argument('<message>', 'id')
    .action((id: string, _, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const found = member(await client.get(pathOf(id)), 'message');
        printer.object({ fields: row(found), raw: found });
      }),
    );
  message
    .command('delete')
    .description('delete messages')
    .argument('<message...>', 'ids')
    .action((ids: string[], _, command: Command) =>
      withContext(command, async ({ client }) => {
        for (const id of ids) await client.request('DELETE', pathOf(id));
      }),
    );
}
