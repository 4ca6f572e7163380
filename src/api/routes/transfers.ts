/**
 * Transfers of volumes between projects, under the path they always had and, from 3.55, a second one that knows more.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { TransferRow } from '../../catalog/schema.ts';
import type { TransferColumn } from '../../catalog/transfers.ts';
import { acceptTransfer, createTransfer, deleteTransfer, getTransfer, listTransfers } from '../../control/transfers.ts';
import { type Asked, param } from '../asked.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import { AcceptTransfer, CreateTransfer, CreateTransferWithSnapshots } from '../schemas/transfers.ts';
import { booleanOf, checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, linksOf, nextLink, timeOf } from '../views.ts';
import { trimmed } from './volumes.ts';

const WORDS: Words<TransferColumn> = {
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    display_name: { kind: 'text', column: 'name' },
    volume_id: { kind: 'text', column: 'volume_id' },
    source_project_id: { kind: 'text', column: 'project_id' },
    destination_project_id: { kind: 'constant', value: null },
    accepted: { kind: 'constant', value: 'false' },
  },
  sort: {
    id: 'id',
    name: 'name',
    display_name: 'name',
    volume_id: 'volume_id',
    source_project_id: 'project_id',
    created_at: 'created_at',
  },
};
/** Before, lists were in the order of creation and in one page. */
const PAGES_SINCE = 59;
const OLD_WORDS: Words<TransferColumn> = { ...WORDS, defaultDirection: 'asc' };
const ORDER_WORDS = ['sort', 'sort_key', 'sort_dir', 'marker'];

export function transferRoutes(app: FastifyInstance, { control }: RouteContext): void {
  for (const { path, since, isNew } of [
    { path: '/os-volume-transfer', since: 0, isNew: false },
    { path: '/volume-transfers', since: 55, isNew: true },
  ]) {
    const config = { since };
    const list = async (request: FastifyRequest, view: (asked: Asked, row: TransferRow) => Json) => {
      const { asked } = request;
      const isPaged = isNew && asked.minor >= PAGES_SINCE;
      const query = isPaged ? (request.query as Query) : without(request.query as Query, ORDER_WORDS);
      const page = pageOf(query, asked, isPaged ? WORDS : OLD_WORDS);
      const items = (await listTransfers(control, asked.caller, page)).map((row) => view(asked, row));
      return { transfers: items, ...nextLink(request, { collection: 'transfers', limit: page.limit, items }) };
    };
    app.get(path, { config: { ...config, list: WORDS, rule: 'volume:get_all_transfers' } }, async (request) =>
      list(request, summary),
    );
    app.get(
      `${path}/detail`,
      { config: { ...config, list: WORDS, rule: 'volume:get_all_transfers' } },
      async (request) => list(request, full),
    );

    const schema = isNew ? CreateTransferWithSnapshots : CreateTransfer;
    app.post(path, { config: { ...config, body: schema, rule: 'volume:create_transfer' } }, async (request, reply) => {
      const { transfer: body } = checked(request, schema, request.body);
      const noSnapshots = 'no_snapshots' in body && booleanOf(body.no_snapshots) === true;
      const wanted = { volumeId: idOf(body.volume_id), name: trimmed(body.name ?? null), noSnapshots };
      const { row, key } = await createTransfer(control, request.asked.caller, wanted);
      return reply.code(202).send({ transfer: { ...full(request.asked, row), auth_key: key } });
    });

    app.get(`${path}/:id`, { config: { ...config, rule: 'volume:get_transfer' } }, async (request) => {
      const row = await getTransfer(control, request.asked.caller, param(request, 'id'));
      return { transfer: full(request.asked, row) };
    });

    app.post(
      `${path}/:id/accept`,
      { config: { ...config, body: AcceptTransfer, rule: 'volume:accept_transfer' } },
      async (request, reply) => {
        const { accept } = checked(request, AcceptTransfer, request.body);
        const wanted = { id: param(request, 'id'), key: String(accept.auth_key) };
        const row = await acceptTransfer(control, request.asked.caller, wanted);
        return reply.code(202).send({ transfer: summary(request.asked, row) });
      },
    );

    app.delete(`${path}/:id`, { config: { ...config, rule: 'volume:delete_transfer' } }, async (request, reply) => {
      await deleteTransfer(control, request.asked.caller, param(request, 'id'));
      return reply.code(202).send();
    });
  }
}

function without(query: Query, names: readonly string[]): Query {
  return Object.fromEntries(Object.entries(query).filter(([name]) => !names.includes(name)));
}

function summary(asked: Asked, row: TransferRow): Json {
  return {
    id: row.id,
    volume_id: row.volume_id,
    name: row.name,
    links: linksOf(asked, 'os-volume-transfer', row.id),
  };
}

/** An offer that can be seen has not been accepted: those that were are gone. */
function full(asked: Asked, row: TransferRow): Json {
  return {
    ...summary(asked, row),
    created_at: timeOf(row.created_at),
    ...(asked.minor >= 55 && { no_snapshots: row.no_snapshots === 1 }),
    ...(asked.minor >= 57 && { source_project_id: row.project_id, destination_project_id: null, accepted: false }),
  };
}
