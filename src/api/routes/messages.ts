/**
 * Messages: list, show, delete. An administrator sees those of every project.
 */
import type { FastifyInstance } from 'fastify';
import type { MessageColumn } from '../../catalog/messages.ts';
import type { MessageRow } from '../../catalog/schema.ts';
import { deleteMessage, getMessage, listMessages } from '../../control/messages.ts';
import { type Asked, param } from '../asked.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import type { RouteContext } from '../server.ts';
import { type Json, linksOf, nextLink, timeOf } from '../views.ts';

const MESSAGES_SINCE = 3;
/** Before, a list had neither pages nor filters. */
const PAGES_SINCE = 5;

const WORDS: Words<MessageColumn> = {
  resource: 'message',
  filters: {
    id: { kind: 'text', column: 'id' },
    event_id: { kind: 'text', column: 'event_id' },
    message_level: { kind: 'text', column: 'message_level' },
    resource_type: { kind: 'text', column: 'resource_type' },
    resource_uuid: { kind: 'text', column: 'resource_uuid' },
    request_id: { kind: 'text', column: 'request_id' },
    project_id: { kind: 'text', column: 'project_id' },
  },
  sort: {
    id: 'id',
    event_id: 'event_id',
    message_level: 'message_level',
    resource_type: 'resource_type',
    resource_uuid: 'resource_uuid',
    request_id: 'request_id',
    created_at: 'created_at',
    guaranteed_until: 'expires_at',
  },
};

export function messageRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const config = { since: MESSAGES_SINCE };

  app.get('/messages', { config: { ...config, list: WORDS, rule: 'message:get_all' } }, async (request) => {
    const { asked } = request;
    const query = asked.minor >= PAGES_SINCE ? (request.query as Query) : {};
    const page = pageOf(query, asked, WORDS);
    const projectId = asked.caller.isAdmin ? null : asked.caller.projectId;
    const rows = await listMessages(control, asked.caller, { ...page, projectId });
    const items = rows.map((row) => messageView(asked, row));
    return { messages: items, ...nextLink(request, { collection: 'messages', limit: page.limit, items }) };
  });

  app.get('/messages/:id', { config: { ...config, rule: 'message:get' } }, async (request) => {
    return {
      message: messageView(request.asked, await getMessage(control, request.asked.caller, param(request, 'id'))),
    };
  });

  app.delete(
    '/messages/:id',
    { config: { ...config, rule: 'message:delete', status: 204 } },
    async (request, reply) => {
      await deleteMessage(control, request.asked.caller, param(request, 'id'));
      return reply.code(204).send();
    },
  );
}

function messageView(asked: Asked, row: MessageRow): Json {
  return {
    id: row.id,
    event_id: row.event_id,
    user_message: row.user_message,
    message_level: row.message_level,
    created_at: timeOf(row.created_at),
    guaranteed_until: timeOf(row.expires_at),
    request_id: row.request_id,
    links: linksOf(asked, 'messages', row.id),
    resource_type: row.resource_type,
    resource_uuid: row.resource_uuid,
  };
}
