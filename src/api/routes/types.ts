/**
 * Volume types, as far as they can be read.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import { allTypes, DEFAULT_TYPE_NAME, getType, type VolumeType } from '../../control/types.ts';
import { param } from '../asked.ts';
import { dictionaryOf, one, type Query } from '../query.ts';
import { booleanOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { typeView } from '../views.ts';

export function typeRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get('/types', { config: { query: ['is_public', 'extra_specs'] } }, async (request) => {
    const query = request.query as Query;
    const types = (await allTypes(control)).filter((type) => isWanted(type, query, request.asked.minor));
    return { volume_types: types.map((type) => typeView(request.asked, type)) };
  });

  app.get('/types/default', async (request) => {
    const type = (await allTypes(control)).find(({ name }) => name === DEFAULT_TYPE_NAME);
    if (type === undefined) throw new Failure('not_found', { kind: 'Volume type', id: 'default' });
    return { volume_type: typeView(request.asked, type) };
  });

  app.get('/types/:id', async (request) => {
    return { volume_type: typeView(request.asked, await getType(control, param(request, 'id'))) };
  });

  app.get('/types/:id/extra_specs', async (request) => {
    return { extra_specs: (await getType(control, param(request, 'id'))).extraSpecs };
  });

  app.get('/types/:id/extra_specs/:key', async (request) => {
    const [id, key] = [param(request, 'id'), param(request, 'key')];
    const { extraSpecs } = await getType(control, id);
    const value = Object.hasOwn(extraSpecs, key) ? extraSpecs[key] : undefined;
    if (value === undefined) throw new Failure('not_found', { kind: `Volume Type ${id} extra spec`, id: key });
    return Object.fromEntries([[key, value]]);
  });

  app.get('/types/:id/encryption', async (request) => {
    await getType(control, param(request, 'id'));
    return {};
  });
}

function isWanted(type: VolumeType, query: Query, minor: number): boolean {
  const isPublic = booleanOf(one(query, 'is_public') ?? 'None');
  if (isPublic !== null && type.isPublic !== isPublic) return false;
  const specs = minor >= 52 ? one(query, 'extra_specs') : undefined;
  if (specs === undefined) return true;
  return dictionaryOf('extra_specs', specs).every(([key, value]) => type.extraSpecs[key] === value);
}
