/**
 * Limits of a project, and the check that a new or growing object stays within them. The check runs in the write that
 * adds the object, so two requests cannot share the last free place.
 */
import { Failure } from '../base/errors.ts';
import { backupUseOf } from '../catalog/backups.ts';
import { countGroups } from '../catalog/groups.ts';
import { limitsOf, removeLimits, type Scope, setLimits, type Use, usesOf } from '../catalog/quotas.ts';
import type { Reader, TypeRow } from '../catalog/schema.ts';
import { listTypes } from '../catalog/types.ts';
import { type Control, QUOTA_RESOURCES, type QuotaDefaults } from './control.ts';

/** By resource; -1 is no limit. */
export type Limits = ReadonlyMap<string, number>;
export type QuotaUse = { readonly limit: number; readonly inUse: number; readonly reserved: number };

export const UNLIMITED = -1;

/** Where whoever connects may do everything, limits would only be in the way. */
export const NO_LIMITS: QuotaDefaults = {
  volumes: UNLIMITED,
  snapshots: UNLIMITED,
  gigabytes: UNLIMITED,
  backups: UNLIMITED,
  backup_gigabytes: UNLIMITED,
  per_volume_gigabytes: UNLIMITED,
  groups: UNLIMITED,
};

/** Where projects are told apart: what users of other clouds expect. */
export const USUAL_LIMITS: QuotaDefaults = {
  volumes: 10,
  snapshots: 10,
  gigabytes: 1000,
  backups: 10,
  backup_gigabytes: 1000,
  per_volume_gigabytes: UNLIMITED,
  groups: 10,
};

const DEFAULT_CLASS = 'default';
const PER_TYPE = ['volumes', 'gigabytes', 'snapshots'] as const;

/** What is limited for each volume type by itself. */
export function resourcesOfType(typeName: string): string[] {
  return PER_TYPE.map((resource) => `${resource}_${typeName}`);
}

export type Charge = {
  readonly projectId: string;
  readonly type: TypeRow;
  readonly volumes: number;
  readonly snapshots: number;
  readonly gigabytes: number;
  /** The size of one volume afterwards; null where no volume grows. */
  readonly volumeGib: number | null;
};

/** Refuses with `over_quota`, naming limit and use. */
export async function charge(control: Control, reader: Reader, wanted: Charge): Promise<void> {
  const limits = await effectiveLimits(control, reader, wanted.projectId);
  const limitOf = (resource: string): number => limits.get(resource) ?? UNLIMITED;
  const largest = limitOf('per_volume_gigabytes');
  if (wanted.volumeGib !== null && largest !== UNLIMITED && wanted.volumeGib > largest) {
    const reason = `VolumeSizeExceedsLimit: Requested volume size ${wanted.volumeGib}G is larger than maximum allowed limit ${largest}G.`;
    throw new Failure('over_quota', { reason });
  }
  const suffixes = ['', `_${wanted.type.name}`];
  const counted = suffixes.flatMap((suffix) => PER_TYPE.map((resource) => `${resource}${suffix}`));
  if (counted.every((resource) => limitOf(resource) === UNLIMITED)) return;
  const uses = await usesOf(reader, wanted.projectId);
  for (const suffix of suffixes) {
    const use = total(suffix === '' ? uses : uses.filter((line) => line.typeId === wanted.type.id));
    checkUse({ suffix, limitOf, use, add: wanted });
  }
}

/** One more group. */
export async function chargeGroup(control: Control, reader: Reader, projectId: string): Promise<void> {
  const limit = (await effectiveLimits(control, reader, projectId)).get('groups') ?? UNLIMITED;
  if (limit === UNLIMITED || (await countGroups(reader, projectId)) < limit) return;
  const reason = `GroupLimitExceeded: Maximum number of groups allowed (${limit}) exceeded.`;
  throw new Failure('over_quota', { reason });
}

/** For what the project has already, but of another type. */
export async function chargeType(
  control: Control,
  reader: Reader,
  wanted: Pick<Charge, 'projectId' | 'type' | 'volumes' | 'gigabytes'>,
): Promise<void> {
  const limits = await effectiveLimits(control, reader, wanted.projectId);
  const uses = await usesOf(reader, wanted.projectId);
  checkUse({
    suffix: `_${wanted.type.name}`,
    limitOf: (resource) => limits.get(resource) ?? UNLIMITED,
    use: total(uses.filter((line) => line.typeId === wanted.type.id)),
    add: { ...wanted, snapshots: 0 },
  });
}

type UseCheck = {
  readonly suffix: string;
  readonly limitOf: (resource: string) => number;
  readonly use: Total;
  readonly add: Pick<Charge, 'volumes' | 'snapshots' | 'gigabytes'>;
};

function checkUse({ suffix, limitOf, use, add }: UseCheck): void {
  const volumes = `volumes${suffix}`;
  const snapshots = `snapshots${suffix}`;
  checkCount({ resource: volumes, limit: limitOf(volumes), use: use.volumes, add: add.volumes });
  checkCount({ resource: snapshots, limit: limitOf(snapshots), use: use.snapshots, add: add.snapshots });
  checkSize({ suffix, limit: limitOf(`gigabytes${suffix}`), use: use.gigabytes + use.growing, add: add.gigabytes });
}

/** One more backup of so many GiB. */
export async function chargeBackup(
  control: Control,
  reader: Reader,
  { projectId, gib }: { projectId: string; gib: number },
): Promise<void> {
  const limits = await effectiveLimits(control, reader, projectId);
  const [countMax, gibMax] = [limits.get('backups') ?? UNLIMITED, limits.get('backup_gigabytes') ?? UNLIMITED];
  if (countMax === UNLIMITED && gibMax === UNLIMITED) return;
  const use = await backupUseOf(reader, projectId);
  if (countMax !== UNLIMITED && use.count + 1 > countMax) {
    const reason = `BackupLimitExceeded: Maximum number of backups allowed (${countMax}) exceeded`;
    throw new Failure('over_quota', { reason });
  }
  if (gibMax !== UNLIMITED && use.gib + gib > gibMax) {
    const reason =
      'VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. ' +
      `Requested ${gib}G, quota is ${gibMax}G and ${use.gib}G has been consumed.`;
    throw new Failure('over_quota', { reason });
  }
}

type Check = { readonly limit: number; readonly use: number; readonly add: number };

function checkCount({ resource, limit, use, add }: Check & { resource: string }): void {
  if (limit === UNLIMITED || add === 0 || use + add <= limit) return;
  const name = resource.startsWith('volumes') ? 'Volume' : 'Snapshot';
  const reason = `${name}LimitExceeded: Maximum number of ${name.toLowerCase()}s allowed (${limit}) exceeded for quota '${resource}'.`;
  throw new Failure('over_quota', { reason });
}

function checkSize({ suffix, limit, use, add }: Check & { suffix: string }): void {
  if (limit === UNLIMITED || add === 0 || use + add <= limit) return;
  const reason =
    `VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes${suffix} quota. ` +
    `Requested ${add}G, quota is ${limit}G and ${use}G has been consumed.`;
  throw new Failure('over_quota', { reason });
}

type Total = { volumes: number; snapshots: number; gigabytes: number; growing: number };

function total(uses: readonly Use[]): Total {
  const sum: Total = { volumes: 0, snapshots: 0, gigabytes: 0, growing: 0 };
  for (const use of uses) {
    sum.volumes += use.volumes;
    sum.snapshots += use.snapshots;
    sum.gigabytes += use.volumeGib + use.snapshotGib;
    sum.growing += use.growingGib;
  }
  return sum;
}

/** Every resource there is, with the limit of the class `default`. */
export async function defaultLimits(control: Control, reader: Reader): Promise<Map<string, number>> {
  const limits = new Map<string, number>();
  for (const resource of QUOTA_RESOURCES) limits.set(resource, control.settings.quotaDefaults[resource]);
  for (const type of await listTypes(reader))
    for (const resource of resourcesOfType(type.name)) limits.set(resource, UNLIMITED);
  return overlaid(limits, await limitsOf(reader, { scope: 'class', id: DEFAULT_CLASS }));
}

export async function effectiveLimits(control: Control, reader: Reader, projectId: string): Promise<Limits> {
  const limits = await defaultLimits(control, reader);
  return overlaid(limits, await limitsOf(reader, { scope: 'project', id: projectId }));
}

export async function classLimits(control: Control, name: string): Promise<Limits> {
  const { reader } = control.catalog;
  const limits = await defaultLimits(control, reader);
  return overlaid(limits, await limitsOf(reader, { scope: 'class', id: name }));
}

/** Limits of types that are gone are no longer shown. */
function overlaid(limits: Map<string, number>, own: Limits): Map<string, number> {
  for (const [resource, limit] of own) if (limits.has(resource)) limits.set(resource, limit);
  return limits;
}

export async function quotaUse(control: Control, projectId: string): Promise<ReadonlyMap<string, QuotaUse>> {
  const { reader } = control.catalog;
  const limits = await effectiveLimits(control, reader, projectId);
  return useUnder(reader, projectId, limits);
}

async function useUnder(reader: Reader, projectId: string, limits: Limits): Promise<Map<string, QuotaUse>> {
  const uses = await usesOf(reader, projectId);
  const totals = new Map<string, Total>([['', total(uses)]]);
  for (const type of await listTypes(reader))
    totals.set(`_${type.name}`, total(uses.filter((line) => line.typeId === type.id)));
  const found = new Map<string, QuotaUse>();
  for (const [resource, limit] of limits) found.set(resource, { limit, inUse: 0, reserved: 0 });
  const groupLimit = limits.get('groups');
  if (groupLimit !== undefined)
    found.set('groups', { limit: groupLimit, inUse: await countGroups(reader, projectId), reserved: 0 });
  for (const [suffix, use] of totals) {
    const set = (resource: string, inUse: number, reserved: number): void => {
      const limit = limits.get(`${resource}${suffix}`);
      if (limit !== undefined) found.set(`${resource}${suffix}`, { limit, inUse, reserved });
    };
    set('volumes', use.volumes, 0);
    set('snapshots', use.snapshots, 0);
    set('gigabytes', use.gigabytes, use.growing);
  }
  const backups = await backupUseOf(reader, projectId);
  for (const [resource, inUse] of [
    ['backups', backups.count],
    ['backup_gigabytes', backups.gib],
  ] as const) {
    const limit = limits.get(resource);
    if (limit !== undefined) found.set(resource, { limit, inUse, reserved: 0 });
  }
  return found;
}

export async function updateQuota(control: Control, projectId: string, wanted: Limits): Promise<Limits> {
  await control.catalog.write(async (writer) => {
    const limits = await effectiveLimits(control, writer, projectId);
    refuseUnknown(limits, wanted);
    const uses = await useUnder(writer, projectId, limits);
    for (const [resource, limit] of wanted) {
      const use = uses.get(resource);
      const used = use === undefined ? 0 : use.inUse + use.reserved;
      if (limit === UNLIMITED || resource === 'per_volume_gigabytes' || limit >= used) continue;
      const reason =
        `Quota ${resource} limit must be equal or greater than existing resources. ` +
        `Current usage is ${used} and the requested limit is ${limit}.`;
      throw new Failure('bad_request', { reason });
    }
    await setLimits(writer, { scope: 'project', id: projectId }, wanted);
  });
  return effectiveLimits(control, control.catalog.reader, projectId);
}

export async function resetQuota(control: Control, projectId: string): Promise<void> {
  const scope: Scope = { scope: 'project', id: projectId };
  await control.catalog.write((writer) => removeLimits(writer, scope));
}

export async function updateClass(control: Control, name: string, wanted: Limits): Promise<Limits> {
  await control.catalog.write(async (writer) => {
    refuseUnknown(await defaultLimits(control, writer), wanted);
    await setLimits(writer, { scope: 'class', id: name }, wanted);
  });
  return classLimits(control, name);
}

function refuseUnknown(limits: Limits, wanted: Limits): void {
  const unknown = [...wanted.keys()].filter((resource) => !limits.has(resource));
  if (unknown.length === 0) return;
  throw new Failure('bad_request', {
    reason: `Invalid input received: Bad key(s) in quota set: ${unknown.join(', ')}`,
  });
}
