/**
 * The services that this daemon is, by the names clients know, and what an administrator said of them: a disabled volume
 * service takes no new volumes, a frozen one is disabled too. All run in one process, so all are up or nobody
 * answers; but without a place for backups there is no backup service.
 */
import { Failure } from '../base/errors.ts';
import type { ServiceRow } from '../catalog/schema.ts';
import { listServices as listRows, type ProjectTotal, setService, totalsByProject } from '../catalog/services.ts';
import type { Control } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import { backendName } from './pools.ts';

export type Service = {
  readonly binary: string;
  readonly host: string;
  readonly isDisabled: boolean;
  readonly disabledReason: string | null;
  readonly isFrozen: boolean;
  readonly isUp: boolean;
};

export const VOLUME_SERVICE = 'cinder-volume';
export const BACKUP_SERVICE = 'cinder-backup';
const FROZEN = 'frozen';

export async function listServices(control: Control, caller: Caller): Promise<Service[]> {
  enforce(caller, 'volume_extension:services:index');
  return allServices(control);
}

async function allServices(control: Control): Promise<Service[]> {
  const { host } = control.settings;
  const rows = await listRows(control.catalog.reader);
  return [
    { binary: 'cinder-scheduler', host },
    { binary: VOLUME_SERVICE, host: backendName(control) },
    { binary: BACKUP_SERVICE, host },
  ].map(({ binary, host: on }) => {
    const said = rows.find((row) => row.binary === binary && row.host === on);
    return {
      binary,
      host: on,
      isDisabled: said?.disabled === 1,
      disabledReason: said?.disabled_reason ?? null,
      isFrozen: said?.frozen === 1,
      isUp: binary !== BACKUP_SERVICE || control.backups.isConfigured,
    };
  });
}

async function volumeService(control: Control): Promise<Service> {
  const found = (await allServices(control)).find(({ binary }) => binary === VOLUME_SERVICE);
  if (found === undefined) throw new Error(`no service ${VOLUME_SERVICE}`);
  return found;
}

/** Whether new volumes can be made in the only zone there is. */
export async function isZoneAvailable(control: Control): Promise<boolean> {
  return !(await volumeService(control)).isDisabled;
}

/** Fails with `no_backend` while an administrator wants no new volumes. */
export async function requireVolumeService(control: Control): Promise<void> {
  const service = await volumeService(control);
  if (!service.isDisabled) return;
  const why = service.disabledReason === null ? '' : ` (${service.disabledReason})`;
  throw new Failure('no_backend', { reason: `${service.binary} on ${service.host} is disabled${why}.` });
}

/** No new backups, and no restores, while an administrator wants none or there is no place for them. */
export async function requireBackupService(control: Control): Promise<void> {
  control.backups.requireConfigured();
  const service = (await allServices(control)).find(({ binary }) => binary === BACKUP_SERVICE);
  if (service === undefined || !service.isDisabled) return;
  const why = service.disabledReason === null ? '' : ` (${service.disabledReason})`;
  throw new Failure('objects_unavailable', { reason: `${service.binary} on ${service.host} is disabled${why}.` });
}

export type ServiceName = { readonly binary: string; readonly host: string };

export async function enableService(control: Control, caller: Caller, name: ServiceName): Promise<void> {
  enforce(caller, 'volume_extension:services:update');
  const service = await requireService(control, name);
  await say(control, { ...service, isDisabled: false, disabledReason: null });
}

export async function disableService(
  control: Control,
  caller: Caller,
  { name, reason }: { name: ServiceName; reason: string | null },
): Promise<void> {
  enforce(caller, 'volume_extension:services:update');
  const service = await requireService(control, name);
  await say(control, { ...service, isDisabled: true, disabledReason: reason ?? service.disabledReason });
}

export async function freezeHost(control: Control, caller: Caller, host: string): Promise<void> {
  enforce(caller, 'volume:freeze_host');
  const service = await requireVolumeHost(control, host);
  if (service.isFrozen) throw refused(`Host ${host} is already frozen.`);
  await say(control, { ...service, isFrozen: true, isDisabled: true, disabledReason: FROZEN });
}

export async function thawHost(control: Control, caller: Caller, host: string): Promise<void> {
  enforce(caller, 'volume:thaw_host');
  const service = await requireVolumeHost(control, host);
  if (!service.isFrozen) throw refused(`Host ${host} is not frozen.`);
  await say(control, { ...service, isFrozen: false, isDisabled: false, disabledReason: null });
}

/** There is never a second site to fail over to. */
export async function failoverHost(control: Control, caller: Caller, host: string): Promise<void> {
  enforce(caller, 'volume:failover_host');
  await requireVolumeHost(control, host);
  throw refused(`Host ${host} cannot fail over: replication is not enabled on it.`);
}

export type HostUse = {
  readonly projectId: string;
  readonly volumes: Omit<ProjectTotal, 'projectId'>;
  readonly snapshots: Omit<ProjectTotal, 'projectId'>;
};

/** What each project has on the host of the volume service. */
export async function hostUse(control: Control, caller: Caller, host: string): Promise<HostUse[]> {
  enforce(caller, 'volume_extension:hosts');
  if (host !== backendName(control)) throw new Failure('not_found', { kind: 'Host', id: host });
  const { reader } = control.catalog;
  const volumes = await totalsByProject(reader, 'volumes');
  const snapshots = await totalsByProject(reader, 'snapshots');
  const none = { count: 0, sizeGib: 0 };
  return [...new Set([...volumes, ...snapshots].map(({ projectId }) => projectId))].map((projectId) => ({
    projectId,
    volumes: volumes.find((line) => line.projectId === projectId) ?? none,
    snapshots: snapshots.find((line) => line.projectId === projectId) ?? none,
  }));
}

async function requireService(control: Control, { binary, host }: ServiceName): Promise<Service> {
  const found = (await allServices(control)).find((service) => service.binary === binary && service.host === host);
  if (found === undefined) throw new Failure('not_found', { kind: `Service ${binary} on host`, id: host });
  return found;
}

async function requireVolumeHost(control: Control, host: string): Promise<Service> {
  if (host !== backendName(control)) throw refused(`Service ${VOLUME_SERVICE} could not be found on host ${host}.`);
  return volumeService(control);
}

function refused(what: string): Failure {
  return new Failure('bad_request', { reason: `Invalid input received: ${what}` });
}

async function say(control: Control, service: Service): Promise<void> {
  const row: ServiceRow = {
    binary: service.binary,
    host: service.host,
    disabled: service.isDisabled ? 1 : 0,
    disabled_reason: service.disabledReason,
    frozen: service.isFrozen ? 1 : 0,
    updated_at: control.nowUs(),
  };
  await control.catalog.write((writer) => setService(writer, row));
}
