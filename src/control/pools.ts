/**
 * What the pool can do and how full it is, in the words that schedulers and extra specs use. There is one pool; it is
 * known as `host@pool#pool`.
 */
import { type Control, GIB } from './control.ts';
import { status } from './status.ts';

export type Capability = string | number | boolean | null;
export type Capabilities = Readonly<Record<string, Capability>>;

/** What does not change while the daemon runs. */
export const POOL = {
  pool_name: 'pool',
  volume_backend_name: 'quarry',
  vendor_name: 'Quarry',
  storage_protocol: 'nbd',
  thin_provisioning_support: true,
  thick_provisioning_support: false,
  multiattach: true,
  QoS_support: true,
  online_extend_support: true,
  replication_enabled: false,
  consistent_group_snapshot_enabled: true,
  backend_state: 'up',
  filter_function: null,
  goodness_function: null,
  location_info: null,
} as const satisfies Capabilities;

/** The service that works on the pool, and the pool itself. */
export function backendName(control: Control): string {
  return `${control.settings.host}@${POOL.pool_name}`;
}

export function poolName(control: Control): string {
  return `${backendName(control)}#${POOL.pool_name}`;
}

/** Whether `name` is this host, backend or pool, or one on it: `host` has all of `host@backend#pool`. */
export function isAt(name: string, place: string): boolean {
  if (name === place) return true;
  return (
    !place.includes('#') && (name.startsWith(`${place}#`) || (!place.includes('@') && name.startsWith(`${place}@`)))
  );
}

export async function capabilities(control: Control): Promise<Capabilities> {
  const { pool, volumes } = await status(control);
  return {
    ...POOL,
    driver_version: control.settings.version,
    total_capacity_gb: hundredths(pool.capacityBytes / GIB),
    free_capacity_gb: hundredths(Math.max(0, pool.freeBytes - pool.reservedBytes) / GIB),
    // What the catalog has, and what came into being.
    allocated_capacity_gb: volumes.reduce((sum, line) => sum + line.sizeGib, 0),
    provisioned_capacity_gb: hundredths(pool.provisionedBytes / GIB),
    max_over_subscription_ratio: decimal(pool.maxOverSubscription),
    reserved_percentage: pool.reservedPercentage,
    total_volumes: volumes.reduce((sum, line) => sum + line.count, 0),
  };
}

/** As clients know it: a text, with a digit after the point. */
function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

function hundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
