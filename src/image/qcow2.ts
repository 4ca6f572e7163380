/**
 * qcow2 images, versions 2 and 3, read-only: two levels of tables, zero clusters, subclusters, compressed clusters.
 * Tables are read when they are needed and at most a fixed number is held; every offset in them is compared with the
 * file before it is followed. Internal snapshots are not looked at: what is read is the disk as it is now.
 */
import type { FileHandle } from 'node:fs/promises';
import { Failure } from '../base/errors.ts';
import { inflate } from './compression.ts';
import { type ImageExtent, type ImageReader, readPadded } from './image.ts';
import { parseQcow2Header, QCOW2_HEADER_BYTES, type Qcow2Header } from './qcow2-header.ts';

const OFFSET_MASK = 0x00fffffffffffe00n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;
const SUBCLUSTERS = 32;
/** L2 tables held; one is as large as a cluster, 2 MiB at most. */
const TABLES_MAX = 16;
/** L1 entries read at a time. */
const L1_PAGE_ENTRIES = 8192;

/** What a piece of the image is: a cluster, or one of its subclusters. */
type Piece =
  | { readonly kind: 'hole'; readonly length: number }
  | { readonly kind: 'data'; readonly length: number; readonly hostOffset: number }
  | { readonly kind: 'compressed'; readonly length: number; readonly hostOffset: number; readonly hostBytes: number };

class Qcow2Image implements ImageReader {
  readonly format = 'qcow2';
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #fileBytes: number;
  readonly #header: Qcow2Header;
  readonly #entryBytes: number;
  readonly #entriesPerTable: number;
  readonly #tables = new Map<number, Promise<Buffer>>();
  #l1Page: { readonly index: number; readonly bytes: Promise<Buffer> } | null = null;
  /** Readers go forward in pieces smaller than a cluster: the last one inflated is asked for again. */
  #inflated: { readonly index: number; readonly bytes: Promise<Buffer> } | null = null;

  constructor(path: string, file: FileHandle, fileBytes: number, header: Qcow2Header) {
    this.#path = path;
    this.#file = file;
    this.#fileBytes = fileBytes;
    this.#header = header;
    this.#entryBytes = header.hasSubclusters ? 16 : 8;
    this.#entriesPerTable = header.clusterBytes / this.#entryBytes;
    this.sizeBytes = header.sizeBytes;
  }

  async *extents(): AsyncGenerator<ImageExtent> {
    let open: ImageExtent | null = null;
    for await (const part of this.#parts()) {
      if (open !== null && open.kind === part.kind) {
        open = { offset: open.offset, length: open.length + part.length, kind: open.kind };
        continue;
      }
      if (open !== null) yield open;
      open = part;
    }
    if (open !== null) yield open;
  }

  async read(offset: number, target: Buffer): Promise<void> {
    let done = 0;
    while (done < target.length) {
      const position = offset + done;
      const piece = await this.#pieceAt(position);
      const count = Math.min(piece.length, target.length - done);
      const part = target.subarray(done, done + count);
      if (piece.kind === 'hole') part.fill(0);
      else if (piece.kind === 'data') await readPadded(this.#file, piece.hostOffset, part);
      else {
        const index = Math.floor(position / this.#header.clusterBytes);
        const cluster = await this.#inflate(index, piece.hostOffset, piece.hostBytes);
        const start = position - index * this.#header.clusterBytes;
        cluster.copy(part, 0, start, start + count);
      }
      done += count;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  /** Unmerged; a missing L2 table is one hole, so an empty image costs one step per table and not per cluster. */
  async *#parts(): AsyncGenerator<ImageExtent> {
    const { clusterBytes, sizeBytes } = this.#header;
    const tableSpan = clusterBytes * this.#entriesPerTable;
    let position = 0;
    while (position < sizeBytes) {
      const l1Index = Math.floor(position / tableSpan);
      const tableOffset = await this.#tableOffset(l1Index);
      const tableEnd = Math.min((l1Index + 1) * tableSpan, sizeBytes);
      if (tableOffset === 0) {
        yield { offset: position, length: tableEnd - position, kind: 'hole' };
        position = tableEnd;
        continue;
      }
      const table = await this.#table(tableOffset);
      // Merged here as far as a table goes: an await for each cluster of a large image would cost minutes.
      while (position < tableEnd) {
        const start = position;
        const isHole = this.#piece(table, position).kind === 'hole';
        while (position < tableEnd) {
          const piece = this.#piece(table, position);
          if ((piece.kind === 'hole') !== isHole) break;
          position = Math.min(position + piece.length, tableEnd);
        }
        yield { offset: start, length: position - start, kind: isHole ? 'hole' : 'data' };
      }
    }
  }

  async #pieceAt(position: number): Promise<Piece> {
    const tableSpan = this.#header.clusterBytes * this.#entriesPerTable;
    const tableOffset = await this.#tableOffset(Math.floor(position / tableSpan));
    if (tableOffset === 0) return { kind: 'hole', length: tableSpan - (position % tableSpan) };
    return this.#piece(await this.#table(tableOffset), position);
  }

  /** The piece at a position, from there to the piece's end. */
  #piece(table: Buffer, position: number): Piece {
    const { clusterBytes, version } = this.#header;
    const within = position % clusterBytes;
    const length = clusterBytes - within;
    const at = (Math.floor(position / clusterBytes) % this.#entriesPerTable) * this.#entryBytes;
    const entry = table.readBigUInt64BE(at);
    if ((entry & COMPRESSED) !== 0n) return this.#compressedPiece(entry, length);
    const host = Number(entry & OFFSET_MASK);
    if (this.#header.hasSubclusters) return this.#subcluster(host, table.readBigUInt64BE(at + 8), within);
    if (version === 3 && (entry & ZERO) !== 0n) return { kind: 'hole', length };
    if (host === 0) return { kind: 'hole', length };
    return { kind: 'data', length, hostOffset: this.#checkedHost(host) + within };
  }

  /** Low half of the bitmap: allocated; high half: reads as zeros; neither: not there. */
  #subcluster(host: number, bitmap: bigint, within: number): Piece {
    const bytes = this.#header.clusterBytes / SUBCLUSTERS;
    const index = Math.floor(within / bytes);
    const length = (index + 1) * bytes - within;
    const isAllocated = ((bitmap >> BigInt(index)) & 1n) !== 0n;
    const isZero = ((bitmap >> BigInt(index + SUBCLUSTERS)) & 1n) !== 0n;
    if (isAllocated && isZero) throw this.#damaged('a subcluster is both allocated and zero');
    if (!isAllocated) return { kind: 'hole', length };
    if (host === 0) throw this.#damaged('a subcluster is allocated in no cluster');
    return { kind: 'data', length, hostOffset: this.#checkedHost(host) + within };
  }

  #compressedPiece(entry: bigint, length: number): Piece {
    const offsetBits = BigInt(62 - (this.#header.clusterBits - 8));
    const hostOffset = Number(entry & ((1n << offsetBits) - 1n));
    const sectors = Number((entry & (COMPRESSED - 1n)) >> offsetBits) + 1;
    // Counted from the sector in which the data begin; what lies behind their end is not theirs.
    const hostBytes = Math.min(sectors * 512 - (hostOffset % 512), this.#fileBytes - hostOffset);
    if (hostBytes <= 0) throw this.#damaged(`a compressed cluster at ${hostOffset} lies outside the file`);
    return { kind: 'compressed', length, hostOffset, hostBytes };
  }

  #checkedHost(host: number): number {
    if (host % this.#header.clusterBytes !== 0) throw this.#damaged(`a table names ${host}, which is not aligned`);
    if (host >= this.#fileBytes) {
      throw this.#damaged(
        `a cluster at ${host} lies outside the file of ${this.#fileBytes} bytes (is the copy complete?)`,
      );
    }
    return host;
  }

  async #tableOffset(l1Index: number): Promise<number> {
    const page = Math.floor(l1Index / L1_PAGE_ENTRIES);
    if (this.#l1Page?.index !== page) this.#l1Page = { index: page, bytes: this.#readL1Page(page) };
    const bytes = await this.#l1Page.bytes;
    const offset = Number(bytes.readBigUInt64BE((l1Index % L1_PAGE_ENTRIES) * 8) & OFFSET_MASK);
    return offset === 0 ? 0 : this.#checkedHost(offset);
  }

  async #readL1Page(page: number): Promise<Buffer> {
    const first = page * L1_PAGE_ENTRIES;
    const bytes = Buffer.alloc(Math.min(L1_PAGE_ENTRIES, this.#header.l1Entries - first) * 8);
    await readPadded(this.#file, this.#header.l1Offset + first * 8, bytes);
    return bytes;
  }

  #table(offset: number): Promise<Buffer> {
    const held = this.#tables.get(offset);
    if (held !== undefined) return held;
    const oldest = this.#tables.keys().next();
    if (this.#tables.size >= TABLES_MAX && !oldest.done) this.#tables.delete(oldest.value);
    const bytes = Buffer.alloc(this.#header.clusterBytes);
    const reading = readPadded(this.#file, offset, bytes).then(() => bytes);
    this.#tables.set(offset, reading);
    return reading;
  }

  async #inflate(index: number, hostOffset: number, hostBytes: number): Promise<Buffer> {
    if (this.#inflated?.index !== index) this.#inflated = { index, bytes: this.#inflateNow(hostOffset, hostBytes) };
    return await this.#inflated.bytes;
  }

  async #inflateNow(hostOffset: number, hostBytes: number): Promise<Buffer> {
    const packed = Buffer.alloc(hostBytes);
    await readPadded(this.#file, hostOffset, packed);
    const cluster = await inflate(this.#header.compression, packed, this.#header.clusterBytes);
    if (cluster === null) throw this.#damaged(`the compressed cluster at ${hostOffset} cannot be unpacked`);
    return cluster;
  }

  #damaged(reason: string): Failure {
    return new Failure('corrupt', { path: this.#path, reason });
  }
}

export async function openQcow2(path: string, file: FileHandle, fileBytes: number): Promise<ImageReader> {
  const head = Buffer.alloc(QCOW2_HEADER_BYTES);
  await readPadded(file, 0, head);
  const header = parseQcow2Header(path, head, fileBytes);
  if (header.compression === 'zstd') await inflate('zstd', null, header.clusterBytes);
  return new Qcow2Image(path, file, fileBytes, header);
}
