/**
 * What the Identity API (v3) says about a token, decoded and checked: whom it is for, until when, and the service
 * catalog. The one decode of that format; it asks nobody.
 */
import { Failure } from '../base/errors.ts';

export type CatalogEndpoint = { readonly interface: string; readonly region: string | null; readonly url: string };
export type CatalogService = { readonly type: string; readonly endpoints: readonly CatalogEndpoint[] };

export type TokenInfo = {
  readonly userId: string;
  readonly projectId: string | null;
  readonly roles: readonly string[];
  readonly isSystem: boolean;
  /** True where the service says nothing about it. */
  readonly isAdminProject: boolean;
  readonly expiresAtMs: number;
  readonly catalog: readonly CatalogService[];
};

type Plain = Readonly<Record<string, unknown>>;

/** Refuses an answer that is not one of an identity service. */
export function decodeToken(url: string, body: unknown): TokenInfo {
  const token = table(table(body)?.['token']);
  const userId = table(token?.['user'])?.['id'];
  const expiresAt = token?.['expires_at'];
  const expiresAtMs = typeof expiresAt === 'string' ? Date.parse(expiresAt) : Number.NaN;
  if (token === null || typeof userId !== 'string' || Number.isNaN(expiresAtMs))
    throw new Failure('identity_unavailable', { url, reason: 'its answer is not one of the Identity API v3' });
  const projectId = table(token['project'])?.['id'];
  return {
    userId,
    projectId: typeof projectId === 'string' ? projectId : null,
    roles: names(token['roles']),
    isSystem: table(token['system'])?.['all'] === true,
    isAdminProject: token['is_admin_project'] !== false,
    expiresAtMs,
    catalog: list(token['catalog']).flatMap(serviceOf),
  };
}

/** The address of a service: the first of these types that has one in this region and interface. */
export function endpointOf(
  catalog: readonly CatalogService[],
  wanted: { types: readonly string[]; interface: string; region: string | null },
): string | null {
  for (const type of wanted.types)
    for (const service of catalog.filter((candidate) => candidate.type === type))
      for (const endpoint of service.endpoints)
        if (endpoint.interface === wanted.interface && (wanted.region === null || endpoint.region === wanted.region))
          return endpoint.url;
  return null;
}

function serviceOf(value: unknown): CatalogService[] {
  const service = table(value);
  if (service === null || typeof service['type'] !== 'string') return [];
  const endpoints = list(service['endpoints']).flatMap((item): CatalogEndpoint[] => {
    const endpoint = table(item);
    const [face, url] = [endpoint?.['interface'], endpoint?.['url']];
    const region = endpoint?.['region_id'] ?? endpoint?.['region'];
    if (typeof face !== 'string' || typeof url !== 'string') return [];
    return [{ interface: face, url, region: typeof region === 'string' ? region : null }];
  });
  return [{ type: service['type'], endpoints }];
}

function table(value: unknown): Plain | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Plain) : null;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function names(value: unknown): string[] {
  return list(value).flatMap((item) => {
    const name = table(item)?.['name'];
    return typeof name === 'string' ? [name] : [];
  });
}
