/**
 * Deletes backups and collects what no backup needs any more. Safe beside writers and after crashes, without a lock and
 * without a mark over the store: whether a backup exists is decided by one key, and each side writes before it reads.
 *
 * A writer pins its parent, then reads the parent's manifest, and removes the pin after its own manifest is there.
 * A deleter removes the manifest and lists pins, reads manifests, lists pins again, and reads the manifests that have
 * come. So a writer that saw the parent is seen by its pin or by its manifest; and a pack is taken only if no manifest
 * lists it and no pin of an unfinished backup is left. A backup that nothing was heard of for long is given up by a tombstone in its manifest's
 * place: either that or its manifest comes first, never both.
 */
import { Failure } from '../base/errors.ts';
import { BACKUP_FORMAT, encodeSealed, type Manifest, type Tombstone } from '../format/backup-manifest.ts';
import type { ObjectInfo } from '../objects/objects.ts';
import { indexKey, manifestKey, manifestPrefix, packKey, parseKey, pinPrefix, VOLUMES, volumePrefix } from './keys.ts';
import type { Repository } from './repository.ts';

/** A backup writes an object every few seconds; this long without one it is taken for dead. */
export const ABANDONED_MS = 24 * 3600 * 1000;
/** So long a tombstone stays: longer than any writer that it must stop can sleep. */
const TOMBSTONE_MS = 30 * 24 * 3600 * 1000;

export type Collected = {
  readonly objects: number;
  readonly bytes: number;
  /** Backups without a manifest that may still be under way; their objects stay. */
  readonly unfinished: number;
  /** Bytes of packs that stay for a part that is still needed. */
  readonly deadBytes: number;
};

const NOTHING: Collected = { objects: 0, bytes: 0, unfinished: 0, deadBytes: 0 };

/** Whatever was done before of it is no failure. Other backups keep everything they need. */
export async function deleteBackup(
  repository: Repository,
  { volume, backup, signal }: { volume: string; backup: string; signal: AbortSignal },
): Promise<Collected> {
  const finished = new Set([backup]);
  try {
    const manifest = await repository.manifest(volume, backup);
    // Whoever wrote packs that a manifest lists has finished.
    for (const [, owner] of manifest?.packs ?? []) finished.add(owner);
  } catch (error) {
    // A damaged manifest can be deleted; what only it knew goes with a later collection.
    if (!(error instanceof Failure && (error.code === 'corrupt' || error.code === 'newer_format'))) throw error;
  }
  await repository.objects.delete([manifestKey(volume, backup)]);
  return collectVolume(repository, { volume, finished, signal });
}

export async function collectAll(repository: Repository, signal: AbortSignal): Promise<Collected> {
  let sum = NOTHING;
  for (const volume of await repository.objects.folders(VOLUMES)) {
    const found = await collectVolume(repository, { volume, finished: new Set(), signal });
    sum = {
      objects: sum.objects + found.objects,
      bytes: sum.bytes + found.bytes,
      unfinished: sum.unfinished + found.unfinished,
      deadBytes: sum.deadBytes + found.deadBytes,
    };
  }
  return sum;
}

type Listed = { readonly info: ObjectInfo; readonly parsed: ReturnType<typeof parseKey> };

/** `finished`: backups without a manifest that certainly nobody is writing. */
export async function collectVolume(
  repository: Repository,
  { volume, finished, signal }: { volume: string; finished: ReadonlySet<string>; signal: AbortSignal },
): Promise<Collected> {
  const { objects } = repository;
  // The order is the proof: pins and packs are listed before the manifests are read.
  const listed: Listed[] = [];
  for await (const info of objects.list(volumePrefix(volume)))
    listed.push({ info, parsed: parseKey(volume, info.key) });
  if (signal.aborted) throw new Failure('shutting_down');
  const manifests = new Map<string, Manifest | Tombstone>();
  await readManifests(repository, volume, manifests);
  const known = new Set(listed.map(({ info }) => info.key));
  const newPins = await list(repository, volume, pinPrefix(volume));
  listed.push(...newPins.filter(({ info }) => !known.has(info.key)));
  await readManifests(repository, volume, manifests);
  const fates = new Fates(repository, volume, { listed, manifests, finished });
  const doomed: ObjectInfo[] = [];
  const pinned = await fates.hasUnfinishedPins();
  const needed = neededKeys(volume, manifests);
  const keyIds = new Set(
    [...manifests.values()].flatMap((one) => (one.kind === 'backup' ? one.packs.map((p) => p[6]) : [])),
  );
  for (const { info, parsed } of listed) {
    switch (parsed.kind) {
      case 'pack':
      case 'idx':
        if (!needed.has(info.key) && !pinned && (await fates.isOver(parsed.backup))) doomed.push(info);
        break;
      case 'pin':
        if (await fates.isOver(parsed.child)) doomed.push(info);
        break;
      case 'key':
        if (!keyIds.has(parsed.keyId) && !pinned && !fates.hasUnfinished() && fates.isOld(info)) doomed.push(info);
        break;
      case 'manifest': {
        const found = manifests.get(parsed.backup);
        if (found?.kind === 'tombstone' && repository.now() - info.modifiedMs > TOMBSTONE_MS) doomed.push(info);
        break;
      }
      case 'other':
        break;
    }
  }
  if (signal.aborted) throw new Failure('shutting_down');
  await objects.delete(doomed.map(({ key }) => key));
  return {
    objects: doomed.length,
    bytes: doomed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    unfinished: fates.unfinishedCount(),
    deadBytes: deadBytesOf(manifests),
  };
}

type Manifests = ReadonlyMap<string, Manifest | Tombstone>;

async function list({ objects }: Repository, volume: string, prefix: string): Promise<Listed[]> {
  const listed: Listed[] = [];
  for await (const info of objects.list(prefix)) listed.push({ info, parsed: parseKey(volume, info.key) });
  return listed;
}

/** Those not read yet: they never change. One that cannot be read stops the collection, since nobody knows its needs. */
async function readManifests(
  repository: Repository,
  volume: string,
  found: Map<string, Manifest | Tombstone>,
): Promise<void> {
  for (const { parsed } of await list(repository, volume, manifestPrefix(volume))) {
    if (parsed.kind !== 'manifest' || found.has(parsed.backup)) continue;
    const manifest = await repository.manifestOrTombstone(volume, parsed.backup);
    if (manifest !== null) found.set(parsed.backup, manifest);
  }
}

function neededKeys(volume: string, manifests: Manifests): ReadonlySet<string> {
  const needed = new Set<string>();
  for (const manifest of manifests.values()) {
    if (manifest.kind !== 'backup') continue;
    for (const [, owner, sequence] of manifest.packs) needed.add(packKey(volume, owner, sequence));
    for (const [, owner, sequence] of manifest.indexes) needed.add(indexKey(volume, owner, sequence));
  }
  return needed;
}

function deadBytesOf(manifests: Manifests): number {
  const most = new Map<string, { bytes: number; live: number }>();
  for (const manifest of manifests.values())
    for (const [, owner, sequence, bytes, live] of manifest.kind === 'backup' ? manifest.packs : []) {
      const name = `${owner}/${sequence}`;
      most.set(name, { bytes, live: Math.max(live, most.get(name)?.live ?? 0) });
    }
  return [...most.values()].reduce((sum, { bytes, live }) => sum + Math.max(0, bytes - live), 0);
}

/** For each backup that has objects and no manifest: is it over, or may it still be under way? */
class Fates {
  readonly #repository: Repository;
  readonly #volume: string;
  readonly #manifests: Manifests;
  readonly #finished: ReadonlySet<string>;
  readonly #newest = new Map<string, number>();
  readonly #pinning = new Set<string>();
  readonly #known = new Map<string, boolean>();

  constructor(
    repository: Repository,
    volume: string,
    about: { listed: readonly Listed[]; manifests: Manifests; finished: ReadonlySet<string> },
  ) {
    this.#repository = repository;
    this.#volume = volume;
    this.#manifests = about.manifests;
    this.#finished = about.finished;
    for (const { info, parsed } of about.listed) {
      const backup =
        parsed.kind === 'pin' ? parsed.child : parsed.kind === 'pack' || parsed.kind === 'idx' ? parsed.backup : null;
      if (backup === null) continue;
      if (parsed.kind === 'pin') this.#pinning.add(backup);
      this.#newest.set(backup, Math.max(info.modifiedMs, this.#newest.get(backup) ?? 0));
    }
  }

  isOld({ modifiedMs }: ObjectInfo): boolean {
    return this.#repository.now() - modifiedMs > ABANDONED_MS;
  }

  async isOver(backup: string): Promise<boolean> {
    const known = this.#known.get(backup);
    if (known !== undefined) return known;
    const isOver = this.#manifests.has(backup) || this.#finished.has(backup) || (await this.#giveUp(backup));
    this.#known.set(backup, isOver);
    return isOver;
  }

  async hasUnfinishedPins(): Promise<boolean> {
    let found = false;
    for (const child of this.#pinning) if (!(await this.isOver(child))) found = true;
    return found;
  }

  hasUnfinished(): boolean {
    return this.unfinishedCount() > 0;
  }

  unfinishedCount(): number {
    return [...this.#known.values()].filter((isOver) => !isOver).length;
  }

  /** True when this put the tombstone or found one; a manifest that came first is the writer's, and nothing is taken. */
  async #giveUp(backup: string): Promise<boolean> {
    const newest = this.#newest.get(backup) ?? 0;
    if (this.#repository.now() - newest <= ABANDONED_MS) return false;
    const body = encodeSealed({
      format: BACKUP_FORMAT,
      kind: 'tombstone',
      backup,
      created_at: new Date(this.#repository.now()).toISOString(),
    });
    if (await this.#repository.decide(this.#volume, backup, body)) return true;
    return (await this.#repository.manifestOrTombstone(this.#volume, backup))?.kind === 'tombstone';
  }
}
