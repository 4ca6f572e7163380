/**
 * Which names are published over NBD: every volume under its id, and under its name while no other volume bears that
 * name; every snapshot, read-only, under its id; and, unlisted, the names that attachments were given. Publications live
 * as long as the process, so they are made again at each start. What a name should point to is always read from the catalog, in the order of the changes; here is only
 * what it points to now.
 */

import { allConnections } from '../catalog/attachments.ts';
import type { ConnectionRow } from '../catalog/schema.ts';
import { findSnapshot, type NamedSnapshot, namedSnapshots } from '../catalog/snapshots.ts';
import { findVolume, type NamedVolume, namedVolumes, volumesNamed } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { SERVED_NOT } from './states.ts';

export type Export = {
  readonly name: string;
  readonly address: string;
  readonly uri: string;
  readonly readOnly: boolean;
  /** False: made for an attachment. */
  readonly isListed: boolean;
};

type Target = {
  readonly targetId: string;
  readonly readOnly: boolean;
  readonly description: string;
  readonly isListed: boolean;
};
/** What is needed of a connection to publish it. */
type Connection = Pick<ConnectionRow, 'name' | 'volume_id' | 'read_only'>;

/** Anything that looks like an id, with or without dashes, is never published as a name: it could shadow one. */
const LIKE_AN_ID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
/** Publications under way at once at a start. */
const STARTING_AT_ONCE = 64;

export class Exports {
  readonly #control: Control;
  readonly #published = new Map<string, Target>();
  /** The last change under way per name: changes of one name happen in order. */
  readonly #changing = new Map<string, Promise<void>>();

  constructor(control: Control) {
    this.#control = control;
  }

  /** After a start: everything that has data, as far as the backend has it and serves it. */
  async publishAtStart(): Promise<void> {
    const { backend, catalog, log, settings } = this.#control;
    const usages = await backend.usage(null);
    const healthy = new Set(usages.filter((usage) => usage.failed === null).map((usage) => usage.id));
    const volumes = await namedVolumes(catalog.reader);
    const served = new Set(
      volumes.filter((row) => healthy.has(row.id) && !SERVED_NOT.has(row.status)).map(({ id }) => id),
    );
    const wanted = settings.publishAll ? await this.#publicNames(volumes, { served, healthy }) : [];
    for (const row of await allConnections(catalog.reader))
      if (served.has(row.volume_id)) wanted.push([row.name, connectionTarget(row)]);
    for (let first = 0; first < wanted.length; first += STARTING_AT_ONCE) {
      const some = wanted.slice(first, first + STARTING_AT_ONCE);
      // One that cannot be published must not keep the others from being served.
      await Promise.all(
        some.map(([name, target]) => this.#quietly(name, () => this.#change(name, async () => target))),
      );
    }
    log.info({ names: this.#published.size }, 'exports published');
  }

  async #publicNames(
    volumes: readonly NamedVolume[],
    { served, healthy }: { served: ReadonlySet<string>; healthy: ReadonlySet<string> },
  ): Promise<(readonly [string, Target])[]> {
    const { reader } = this.#control.catalog;
    const bearers = new Map<string, number>();
    for (const { name } of volumes) if (name !== null) bearers.set(name, (bearers.get(name) ?? 0) + 1);
    const wanted: (readonly [string, Target])[] = [];
    for (const row of volumes) {
      if (!served.has(row.id)) continue;
      wanted.push([row.id, volumeTarget(row)]);
      if (row.name !== null && isPublishable(row.name) && bearers.get(row.name) === 1)
        wanted.push([row.name, volumeTarget(row)]);
    }
    for (const row of await namedSnapshots(reader))
      if (healthy.has(row.id) && !SERVED_NOT.has(row.status)) wanted.push([row.id, snapshotTarget(row)]);
    return wanted;
  }

  /** Under the name that the attachment gets; with another mode than now, its clients are cut off. */
  async publishConnection(connection: Connection): Promise<void> {
    await this.#change(connection.name, async () => connectionTarget(connection));
  }

  /** Returns when no client that came through the name can do I/O any more. */
  async withdrawName(name: string): Promise<void> {
    await this.#change(name, async () => null);
  }

  /** Before a volume is called available. */
  async publishVolume(id: string): Promise<void> {
    const row = await findVolume(this.#control.catalog.reader, id);
    if (row === undefined || !this.#control.settings.publishAll) return;
    await this.#change(id, async () => volumeTarget(row));
    await this.#nameOf(row.name, id);
  }

  async publishSnapshot(id: string): Promise<void> {
    const row = await findSnapshot(this.#control.catalog.reader, id);
    if (row === undefined || !this.#control.settings.publishAll) return;
    await this.#change(id, async () => snapshotTarget(row));
  }

  /** After a change of a volume's name, flag or status: its names are what they should be, as far as possible. */
  async refreshVolume(id: string): Promise<void> {
    const row = await findVolume(this.#control.catalog.reader, id);
    await this.#quietly(id, async () => {
      if (this.#published.has(id)) await this.#change(id, async () => this.#volumeTargetOf(id));
      await this.#nameOf(row?.name ?? null, null);
    });
  }

  /** After a change of who bears a name. */
  async refreshName(name: string | null): Promise<void> {
    await this.#quietly(name, () => this.#nameOf(name, null));
  }

  /** Ends every publication of a volume or snapshot, and with it the connections that came through them. */
  async withdraw(targetId: string): Promise<void> {
    // Changes under way may have read the catalog before this deletion was in it; later ones see it there.
    await Promise.all(this.#changing.values());
    const names = [...this.#published].filter(([, target]) => target.targetId === targetId).map(([name]) => name);
    for (const name of new Set([...names, targetId]))
      await this.#change(name, async (now) => (now?.targetId === targetId ? null : now));
  }

  exportsOf(targetId: string): Export[] {
    const found: Export[] = [];
    const { backend } = this.#control;
    const scheme = backend.nbdRequiresTls === true ? 'nbds' : 'nbd';
    for (const [name, target] of this.#published) {
      if (target.targetId !== targetId) continue;
      for (const address of backend.nbdAddresses) {
        const uri = nbdUri(address, name, scheme);
        found.push({ name, address, uri, readOnly: target.readOnly, isListed: target.isListed });
      }
    }
    return found.sort((a, b) => Number(b.name === targetId) - Number(a.name === targetId));
  }

  /** `ready` counts as served although its status does not say so yet. */
  async #nameOf(name: string | null, ready: string | null): Promise<void> {
    if (name === null || !isPublishable(name) || !this.#control.settings.publishAll) return;
    await this.#change(name, async () => {
      const [first, second] = await volumesNamed(this.#control.catalog.reader, name);
      if (first === undefined || second !== undefined) return null;
      const isServed = this.#published.has(first.id) && !SERVED_NOT.has(first.status);
      return isServed || first.id === ready ? volumeTarget(first) : null;
    });
  }

  async #volumeTargetOf(id: string): Promise<Target | null> {
    const row = await findVolume(this.#control.catalog.reader, id);
    return row === undefined || SERVED_NOT.has(row.status) ? null : volumeTarget(row);
  }

  /** Makes a name point to what `wanted` says once it is this change's turn. */
  async #change(name: string, wanted: (now: Target | null) => Promise<Target | null>): Promise<void> {
    const before = this.#changing.get(name) ?? Promise.resolve();
    const change = before.then(async () => {
      const now = this.#published.get(name) ?? null;
      await this.#replace(name, now, await wanted(now));
    });
    // The chain goes on after a failure; the failure is the caller's.
    const settled = change.catch(() => {});
    this.#changing.set(name, settled);
    try {
      await change;
    } finally {
      if (this.#changing.get(name) === settled) this.#changing.delete(name);
    }
  }

  async #replace(name: string, now: Target | null, wanted: Target | null): Promise<void> {
    const { backend } = this.#control;
    const same =
      now !== null && wanted !== null && now.targetId === wanted.targetId && now.readOnly === wanted.readOnly;
    if (same) return;
    if (now !== null) {
      await backend.unpublish(name);
      this.#published.delete(name);
    }
    if (wanted === null) return;
    await backend.publish({ name, ...wanted });
    this.#published.set(name, wanted);
  }

  /** For changes that are already committed: the name follows at the next change or start, the request has succeeded. */
  async #quietly(name: string | null, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#control.log.error({ name, err: error }, 'a name could not be published as it should be');
    }
  }
}

function isPublishable(name: string): boolean {
  return name !== '' && !LIKE_AN_ID.test(name);
}

function volumeTarget(row: NamedVolume): Target {
  return {
    targetId: row.id,
    readOnly: row.read_only === 1,
    description: `volume ${row.name ?? row.id}`,
    isListed: true,
  };
}

function snapshotTarget(row: NamedSnapshot): Target {
  return { targetId: row.id, readOnly: true, description: `snapshot ${row.name ?? row.id}`, isListed: true };
}

function connectionTarget({ volume_id, read_only }: Connection): Target {
  return { targetId: volume_id, readOnly: read_only === 1, description: `volume ${volume_id}`, isListed: false };
}

/** `nbds` where the server turns away who does not speak TLS. */
export function nbdUri(address: string, name: string, scheme: 'nbd' | 'nbds' = 'nbd'): string {
  if (!address.startsWith('unix:')) return `${scheme}://${address}/${encodeURIComponent(name)}`;
  const path = address.slice('unix:'.length).split('/').map(encodeURIComponent).join('/');
  return `${scheme}+unix:///${encodeURIComponent(name)}?socket=${path}`;
}
