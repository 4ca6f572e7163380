/**
 * Attachments: list, show, create, update, complete, delete. Shapes in, one call into control, a view out.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { AttachmentColumn } from '../../catalog/attachments.ts';
import {
  completeAttachment,
  createAttachment,
  deleteAttachment,
  getAttachment,
  listAttachmentRows,
  listAttachments,
  type NewAttachment,
  updateAttachment,
} from '../../control/attachments.ts';
import { type Action, action, perform } from '../actions.ts';
import { param } from '../asked.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import { CreateAttachment, CreateAttachmentWithMode, UpdateAttachment } from '../schemas/attachments.ts';
import { ACTION, checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { attachmentSummary, attachmentView } from '../views/attachments.ts';
import { nextLink } from '../views.ts';

const ATTACHMENTS_SINCE = 27;
const COMPLETE_SINCE = 44;
const MODE_SINCE = 54;

const WORDS: Words<AttachmentColumn> = {
  resource: 'attachment',
  filters: {
    id: { kind: 'text', column: 'id' },
    volume_id: { kind: 'text', column: 'volume_id' },
    status: { kind: 'text', column: 'status' },
    attach_status: { kind: 'text', column: 'status' },
    attach_mode: { kind: 'text', column: 'mode' },
    instance_id: { kind: 'text', column: 'instance_id' },
    instance_uuid: { kind: 'text', column: 'instance_id' },
    attached_host: { kind: 'text', column: 'host_name' },
    project_id: { kind: 'text', column: 'project_id' },
  },
  sort: {
    id: 'id',
    volume_id: 'volume_id',
    status: 'status',
    attach_status: 'status',
    instance_id: 'instance_id',
    instance_uuid: 'instance_id',
    attach_time: 'attached_at',
    created_at: 'created_at',
    updated_at: 'updated_at',
  },
};

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'os-complete',
    action(ACTION.nothing, ({ control, asked, id }) => completeAttachment(control, asked.caller, id), {
      since: COMPLETE_SINCE,
      status: 204,
      rule: 'volume:attachment_complete',
    }),
  ],
]);

export function attachmentRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const since = ATTACHMENTS_SINCE;
  const lists = { since, list: WORDS };

  const list = async (request: FastifyRequest, { isDetailed }: { isDetailed: boolean }) => {
    const page = pageOf(request.query as Query, request.asked, WORDS);
    const items = isDetailed
      ? (await listAttachments(control, page)).map((one) => attachmentView(request.asked, one))
      : (await listAttachmentRows(control, page)).map(attachmentSummary);
    return { attachments: items, ...nextLink(request, { collection: 'attachments', limit: page.limit, items }) };
  };
  app.get('/attachments', { config: lists }, async (request) => list(request, { isDetailed: false }));
  app.get('/attachments/detail', { config: lists }, async (request) => list(request, { isDetailed: true }));

  const creation = {
    since,
    rule: 'volume:attachment_create',
    body: [CreateAttachmentWithMode, CreateAttachment],
    status: 200,
  } as const;
  app.post('/attachments', { config: creation }, async (request) => {
    const attachment = await createAttachment(control, request.asked.caller, newAttachmentOf(request));
    return { attachment: attachmentView(request.asked, attachment) };
  });

  app.get('/attachments/:id', { config: { since } }, async (request) => {
    return {
      attachment: attachmentView(
        request.asked,
        await getAttachment(control, request.asked.caller, param(request, 'id')),
      ),
    };
  });

  const update = { since, rule: 'volume:attachment_update', body: UpdateAttachment } as const;
  app.put('/attachments/:id', { config: update }, async (request) => {
    const { attachment: body } = checked(request, UpdateAttachment, request.body);
    const wanted = { id: param(request, 'id'), connector: body.connector };
    return { attachment: attachmentView(request.asked, await updateAttachment(control, request.asked.caller, wanted)) };
  });

  app.post('/attachments/:id/action', { config: { since, actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );

  const removal = { since, rule: 'volume:attachment_delete', status: 200 } as const;
  app.delete('/attachments/:id', { config: removal }, async (request) => {
    const left = await deleteAttachment(control, request.asked.caller, param(request, 'id'));
    return { attachments: left.map(attachmentSummary) };
  });
}

function newAttachmentOf(request: FastifyRequest): NewAttachment {
  const schema = request.asked.minor >= MODE_SINCE ? CreateAttachmentWithMode : CreateAttachment;
  const { attachment: body } = checked(request, schema, request.body);
  const { connector = null, instance_uuid } = body;
  return {
    volumeId: idOf(body.volume_uuid),
    instanceId: instance_uuid === undefined ? null : idOf(instance_uuid),
    // An empty one says as little as none.
    connector: connector === null || Object.keys(connector).length === 0 ? null : connector,
    mode: ('mode' in body ? (body.mode as NewAttachment['mode'] | undefined) : undefined) ?? null,
  };
}
