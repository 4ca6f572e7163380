/** A few bytes of a backup, wherever they begin: for who mends a place of a disk. Every chunk is checked. */
import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS } from '../format/backup-leaf.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import { LeafReader, type Repository } from './repository.ts';
import { joined, keysOf, SpanReader, type Wanted } from './restore.ts';

/** Beyond the end of the backup it is zeros. Fails with `corrupt` when a chunk in it is damaged or missing. */
export async function readPiece(
  repository: Repository,
  manifest: Manifest,
  { offset, length }: { offset: number; length: number },
): Promise<Buffer> {
  const { chunk_bytes: chunkBytes } = manifest;
  const leaves = new LeafReader(repository, manifest);
  const spans = new SpanReader(repository, manifest, await keysOf(repository, manifest));
  const first = Math.floor(offset / chunkBytes);
  const past = Math.ceil(Math.min(offset + length, manifest.size_bytes) / chunkBytes);
  const wanted: Wanted[] = [];
  for (let chunk = first; chunk < past; chunk += 1) {
    const leaf = await leaves.read(Math.floor(chunk / LEAF_CHUNKS));
    const entry = leaf?.get(chunk % LEAF_CHUNKS) ?? null;
    if (entry !== null) wanted.push({ ...entry, chunk });
  }
  const whole = Buffer.alloc(Math.max(0, past - first) * chunkBytes);
  for (const span of joined(wanted, wanted.length)) {
    const { plain, damaged } = await spans.read(span, { wantsBytes: true });
    const [bad] = damaged;
    if (bad !== undefined)
      throw new Failure('corrupt', { path: spans.keyOf(span.pack), reason: `chunk ${bad.chunk}: ${bad.reason}` });
    for (const [index, { chunk }] of span.chunks.entries())
      whole.set(plain.subarray(index * chunkBytes, (index + 1) * chunkBytes), (chunk - first) * chunkBytes);
  }
  const piece = Buffer.alloc(length);
  whole.copy(piece, 0, offset - first * chunkBytes);
  return piece;
}
