/** Volume types and specs of quality of service, found by id or name: names are unique there, and lists are short. */
import { Failure } from '../base/errors.ts';
import type { ApiClient } from './client.ts';
import { type Json, members, text } from './decode.ts';

const LISTS = {
  type: { path: '/types?is_public=None', key: 'volume_types', title: 'Volume type' },
  qos: { path: '/qos-specs', key: 'qos_specs', title: 'QoS spec' },
} as const;
export type CatalogueKind = keyof typeof LISTS;

export const catalogPath = (kind: CatalogueKind, id: string): string =>
  `/${kind === 'type' ? 'types' : 'qos-specs'}/${encodeURIComponent(id)}`;

/** All pages. */
export async function listCatalogue(client: ApiClient, kind: CatalogueKind): Promise<Json[]> {
  const { path, key } = LISTS[kind];
  const found: Json[] = [];
  for (let page: string = path; ; ) {
    const answer = await client.get(page);
    const items = members(answer, key);
    found.push(...items);
    const last = items.at(-1);
    const links = answer[kind === 'type' ? 'volume_type_links' : 'qos_specs_links'];
    if (last === undefined || !Array.isArray(links) || links.length === 0) return found;
    page = `${path}${path.includes('?') ? '&' : '?'}marker=${encodeURIComponent(text(last, 'id'))}`;
  }
}

export async function findInCatalogue(client: ApiClient, kind: CatalogueKind, reference: string): Promise<Json> {
  const all = await listCatalogue(client, kind);
  const found =
    all.find((item) => text(item, 'id') === reference.toLowerCase()) ??
    all.find((item) => text(item, 'name') === reference);
  if (found === undefined) throw new Failure('not_found', { kind: LISTS[kind].title, id: reference });
  return found;
}
