/**
 * What an interrupted attempt at a backup had already stored: its packs, in order, as far as each is whole and the next
 * one in line. They are cut from a snapshot that cannot change, so what is there is what would be written again.
 */

import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS, type LeafEntry } from '../format/backup-leaf.ts';
import type { ManifestPack } from '../format/backup-manifest.ts';
import {
  CODEC_MASK,
  decodeFooter,
  ENCRYPTED,
  footerBytesOf,
  NO_KEY_ID,
  type PackFooter,
} from '../format/backup-pack.ts';
import { packKey, packPrefix } from './keys.ts';
import type { Repository } from './repository.ts';

/** Enough for the footer of a pack of average chunks; a longer one takes a second request. */
const TAIL_BYTES = 64 * 1024;

type Adopted = { readonly sequence: number; readonly first: number; readonly last: number };

export class AdoptedPacks {
  readonly packs: readonly ManifestPack[];
  readonly #repository: Repository;
  readonly #about: { readonly volume: string; readonly backup: string; readonly firstPack: number };
  readonly #spans: readonly Adopted[];
  #kept: { readonly sequence: number; readonly footer: PackFooter } | null = null;

  private constructor(
    repository: Repository,
    about: { volume: string; backup: string; firstPack: number },
    found: { packs: ManifestPack[]; spans: Adopted[] },
  ) {
    this.#repository = repository;
    this.#about = about;
    this.packs = found.packs;
    this.#spans = found.spans;
  }

  /** `isUsable` says of a key id whether its key can be had. */
  static async find(
    repository: Repository,
    about: { volume: string; backup: string; firstPack: number; isEncrypted: boolean },
    isUsable: (keyId: string) => Promise<boolean>,
  ): Promise<AdoptedPacks> {
    const { objects, chunkBytes } = repository;
    const sizes = new Map<string, number>();
    for await (const { key, sizeBytes } of objects.list(packPrefix(about.volume, about.backup)))
      sizes.set(key, sizeBytes);
    const packs: ManifestPack[] = [];
    const spans: Adopted[] = [];
    for (let sequence = 0; ; sequence += 1) {
      const key = packKey(about.volume, about.backup, sequence);
      const size = sizes.get(key);
      if (size === undefined) break;
      const footer = await footerIfWhole(repository, key, size);
      const keyId = footer === null || footer.keyId === NO_KEY_ID ? null : footer.keyId;
      const fits =
        footer !== null &&
        footer.packNumber === about.firstPack + sequence &&
        footer.chunkBytes === chunkBytes &&
        (keyId !== null) === about.isEncrypted &&
        (keyId === null || (await isUsable(keyId)));
      const first = footer?.entries[0]?.chunk;
      const last = footer?.entries.at(-1)?.chunk;
      if (!fits || first === undefined || last === undefined) break;
      packs.push([
        footer.packNumber,
        about.backup,
        sequence,
        size,
        footer.dataBytes,
        footer.hash.toString('hex'),
        keyId,
      ]);
      spans.push({ sequence, first, last });
    }
    return new AdoptedPacks(repository, about, { packs, spans });
  }

  /** By chunk, what is stored of one leaf. */
  async ofLeaf(leaf: number): Promise<ReadonlyMap<number, LeafEntry>> {
    const found = new Map<number, LeafEntry>();
    const start = leaf * LEAF_CHUNKS;
    const end = start + LEAF_CHUNKS;
    for (const { sequence, first, last } of this.#spans) {
      if (last < start || first >= end) continue;
      const pack = this.#about.firstPack + sequence;
      for (const { chunk, offset, storedBytes, flags, hash } of (await this.#footer(sequence)).entries)
        if (chunk >= start && chunk < end) found.set(chunk, { pack, offset, storedBytes, flags, hash });
    }
    return found;
  }

  async #footer(sequence: number): Promise<PackFooter> {
    if (this.#kept?.sequence === sequence) return this.#kept.footer;
    const { volume, backup } = this.#about;
    const key = packKey(volume, backup, sequence);
    const footer = await readFooter(this.#repository, key);
    if (footer === null) throw new Failure('corrupt', { path: key, reason: 'it is missing' });
    this.#kept = { sequence, footer };
    return footer;
  }
}

/** Null when there is no such pack. */
export async function readFooter({ objects }: Repository, key: string): Promise<PackFooter | null> {
  const tail = await objects.get(key, { last: TAIL_BYTES });
  if (tail === null) return null;
  const length = footerBytesOf(key, tail);
  if (length <= tail.length) return decodeFooter(key, tail);
  const longer = await objects.get(key, { last: length });
  return longer === null ? null : decodeFooter(key, longer);
}

async function footerIfWhole(repository: Repository, key: string, sizeBytes: number): Promise<PackFooter | null> {
  try {
    const footer = await readFooter(repository, key);
    if (footer === null) return null;
    const isPlain = footer.entries.every(({ flags }) => (flags & ~(CODEC_MASK | ENCRYPTED)) === 0);
    return isPlain && footer.dataBytes < sizeBytes ? footer : null;
  } catch (error) {
    if (error instanceof Failure && error.code === 'corrupt') return null;
    throw error;
  }
}
