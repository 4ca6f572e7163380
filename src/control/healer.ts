/**
 * Mends what the disk has changed, from backups: whoever shows a damaged place may have one that holds its bytes. The backend takes
 * only bytes with the checksum that was kept, so a backup of another time does no harm; it is one more to try.
 */
import type { BackendEvent } from '../backend/backend.ts';
import { readPiece } from '../backup/piece.ts';
import { availableBackupsOf } from '../catalog/backups.ts';
import { findSnapshot } from '../catalog/snapshots.ts';
import type { Control } from './control.ts';

export type DamageEvent = BackendEvent & { readonly kind: 'damage' };
type Place = DamageEvent['shown'][number];

/** A volume that is backed up each hour has many, and most of them hold the same there. */
const BACKUPS_TRIED_MAX = 50;

export class Healer {
  readonly #control: Control;
  /** One after the other: it is never urgent, and a disk that fails brings many. */
  #work: Promise<void> = Promise.resolve();
  #isStopping = false;

  constructor(control: Control) {
    this.#control = control;
  }

  found(event: DamageEvent): void {
    const { log, metrics } = this.#control;
    log.error({ reason: event.reason }, 'the disk has changed what it held');
    metrics.damageFound.inc();
    this.#work = this.#work
      .then(() => this.#heal(event))
      .catch((error: unknown) => {
        log.error({ err: error, reason: event.reason }, 'mending failed');
      });
  }

  async #heal({ address, shown, reason }: DamageEvent): Promise<void> {
    const { log, metrics, backups } = this.#control;
    if (address === null || !backups.isConfigured) return;
    let tried = 0;
    for (const place of shown) {
      for (const { id, volume_id: volumeId } of await this.#backupsFor(place)) {
        if (this.#isStopping || tried === BACKUPS_TRIED_MAX) return;
        tried += 1;
        if (!(await this.#healFrom({ id, volumeId }, address, place))) continue;
        metrics.damageHealed.inc();
        log.warn({ backup: id, reason }, 'what the disk had changed is mended from a backup');
        return;
      }
    }
    log.error({ backups: tried, reason }, 'no backup holds what the disk has changed');
  }

  async #backupsFor({ kind, id }: Place): Promise<{ id: string; volume_id: string }[]> {
    const { reader } = this.#control.catalog;
    const volumeId = kind === 'volume' ? id : (await findSnapshot(reader, id))?.volume_id;
    return volumeId === undefined ? [] : availableBackupsOf(reader, volumeId);
  }

  async #healFrom(backup: { id: string; volumeId: string }, address: number, place: Place): Promise<boolean> {
    const { backend, backups, log } = this.#control;
    try {
      const repository = await backups.repository();
      const manifest = await repository.manifest(backup.volumeId, backup.id);
      if (manifest === null) return false;
      const bytes = await readPiece(repository, manifest, place);
      return await backend.heal({ address, place, bytes: new Uint8Array(bytes) });
    } catch (error) {
      // A damaged chunk, a store that is away: the next backup may do.
      log.warn({ backup: backup.id, err: error }, 'a backup could not be used to mend what the disk has changed');
      return false;
    }
  }

  async close(): Promise<void> {
    this.#isStopping = true;
    await this.#work;
  }
}
