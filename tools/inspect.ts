/**
 * `tools/inspect`: prints the structures of a pool, field by field with the names of docs/format.md. Reads only, takes no lock, and goes on
 * after damage, which it names. Beside a running daemon what it shows may be moving. It counts and judges nothing: `quarry check` does.
 */

import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { type Checkpoint, decodeCheckpoint } from '../src/format/checkpoint.ts';
import { decodeFrame, FRAME_ALIGN } from '../src/format/frame.ts';
import { openPage, type Page, REFERENCES_PER_PAGE, SLOT_BYTES, SUMS_PER_PAGE } from '../src/format/page.ts';
import { decodePoolHeader } from '../src/format/pool-header.ts';
import { decodeRecords, type EngineRecord } from '../src/format/record.ts';
import { CHANGE_WORDS, EXTENT_BYTES, LEAF_ENTRIES, SLOTS_PER_FILE } from '../src/native/plane.ts';

const USAGE = `usage: tools/inspect DATA header | roots | root N | page ID | file N | journal | map ID OFFSET | extent ADDRESS
                     [--json]
ID of a page is a number, of a map the UUID of a volume or snapshot. Pages, files and maps are those of the newest whole root.`;
const ROOTS = ['checkpoint.0', 'checkpoint.1'];
const HALVES = ['journal.0', 'journal.1'];

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
type Fields = Record<string, Json>;

/** Nothing to print: said, with exit code 1. */
class Nothing extends Error {}

class Pool {
  readonly #folder: string;

  constructor(data: string) {
    this.#folder = join(data, 'pool');
    if (!existsSync(this.#folder)) throw new Nothing(`${data} holds no pool: there is no folder ${this.#folder}`);
  }

  bytes(name: string): Uint8Array | null {
    const path = join(this.#folder, name);
    if (!existsSync(path)) return null;
    try {
      return Uint8Array.from(readFileSync(path));
    } catch (error) {
      throw new Nothing(`${path} cannot be read: ${error instanceof Error ? error.message : error}`);
    }
  }

  part(name: string, offset: number, length: number): Uint8Array | null {
    const path = join(this.#folder, name);
    if (!existsSync(path)) return null;
    const file = openSync(path, 'r');
    const bytes = new Uint8Array(length);
    try {
      return bytes.subarray(0, readSync(file, bytes, 0, length, offset));
    } catch {
      // A place that the disk does not give back: who asked says how many bytes there are.
      return bytes.subarray(0, 0);
    } finally {
      closeSync(file);
    }
  }

  size(name: string): number | null {
    const path = join(this.#folder, name);
    return existsSync(path) ? statSync(path).size : null;
  }

  roots(): { file: string; found: ReturnType<typeof decodeCheckpoint> | null }[] {
    return ROOTS.map((file) => {
      const bytes = this.bytes(file);
      return { file, found: bytes === null ? null : decodeCheckpoint(bytes) };
    });
  }

  newestRoot(): Checkpoint {
    const whole = this.roots().flatMap(({ found }) => (found === null || 'kind' in found ? [] : [found]));
    const newest = whole.sort((one, other) => other.number - one.number)[0];
    if (newest === undefined) throw new Nothing('no root is whole: pages and maps cannot be found. See `roots`.');
    return newest;
  }

  /** A string says what is wrong. */
  page(root: Checkpoint, id: number): Page | string {
    const slot = root.slots[id] ?? 0;
    if (slot === 0) return `root ${root.number} has no slot for page ${id}`;
    const bytes = this.part('pages', slot * SLOT_BYTES, SLOT_BYTES);
    if (bytes === null) return 'pool/pages is missing';
    if (bytes.length < SLOT_BYTES) return `slot ${slot} has only ${bytes.length} of ${SLOT_BYTES} bytes`;
    const page = openPage(bytes, id, root.number);
    return typeof page === 'string' ? `slot ${slot}: ${page}` : page;
  }
}

function header(pool: Pool): Fields {
  const bytes = pool.bytes('header');
  if (bytes === null) return { damaged: 'it is missing' };
  const found = decodePoolHeader(bytes);
  if (typeof found === 'string') return { damaged: found };
  if ('newer' in found) return { damaged: `format version ${found.newer} is newer than this program` };
  return { 'pool id': found.poolId, 'bytes per journal half': found.journalHalfBytes };
}

function damageOf(found: ReturnType<typeof decodeCheckpoint> | null): Fields | null {
  if (found === null) return { damaged: 'it is missing' };
  if (!('kind' in found)) return null;
  if (found.kind === 'newer') return { damaged: `format version ${found.version} is newer than this program` };
  return found.kind === 'absent' ? { empty: 'never written' } : { damaged: found.reason };
}

function summary(root: Checkpoint): Fields {
  return {
    number: root.number,
    'journal sequence': root.sequence,
    'pool id': root.poolId,
    'next object number': root.nextObjectNumber,
    objects: root.objects.length,
    'extent files': root.files.length,
    'drop list': root.drops.length,
    'damaged extents': root.damaged.length,
    'page ids': root.slots.length,
  };
}

function rootOf(pool: Pool, number: number): Fields {
  const root = pool.roots().find(({ found }) => found !== null && !('kind' in found) && found.number === number)?.found;
  if (root === undefined || root === null || 'kind' in root)
    throw new Nothing(`no whole root has number ${number}: see \`roots\``);
  return {
    ...summary(root),
    objects: root.objects.map((object) => ({
      number: object.number,
      kind: object.kind,
      uuid: object.id,
      'size in bytes': object.sizeBytes,
      'root page': object.root,
      height: object.height,
      'mapped extents': object.mapped,
      'made from': object.sourceNumber,
      'journal sequence at its creation': object.createdAt,
    })),
    'extent files': root.files.map(fileFields),
    'drop list': [...root.drops],
    'damaged extents': [...root.damaged],
    'page table': [...root.slots.keys()]
      .filter((id) => root.slots[id] !== 0 || root.references[id] !== 0)
      .map((id) => ({ id, slot: root.slots[id] ?? 0, references: root.references[id] ?? 0 })),
  };
}

function fileFields(file: Checkpoint['files'][number]): Fields {
  return {
    number: file.fileNumber,
    owner: file.owner,
    'used extents': file.used,
    'pages of references': [...file.references],
    'pages of sums': [...file.sums],
  };
}

function pageFields(page: Page): Fields {
  const view = new DataView(page.bytes.buffer, page.bytes.byteOffset, SLOT_BYTES);
  const about = {
    ...{ id: page.id, type: page.type, owner: page.owner, generation: Number(view.getBigUint64(16, true)) },
  };
  if (page.type === 'leaf') {
    const entries = Array.from({ length: LEAF_ENTRIES }, (_, index) => entryFields(page, index));
    return { ...about, entries: entries.filter(({ extent, base }) => extent !== 0 || base !== 0) };
  }
  const name = { inner: 'children', references: 'references', sums: 'sums' }[page.type];
  const words = [...page.words.entries()].filter(([, word]) => word !== 0);
  const shown = (word: number): Json => (page.type === 'sums' ? hex(word) : word);
  return { ...about, [name]: words.map(([index, word]) => ({ index, value: shown(word) })) };
}

function entryFields(page: Page, index: number) {
  return {
    index,
    extent: page.words[index * 2] ?? 0,
    'present bits': bits(page.words[index * 2 + 1] ?? 0),
    base: page.bases[index] ?? 0,
    'base mask': bits(page.masks[index] ?? 0),
  };
}

const bits = (mask: number): string => mask.toString(2).padStart(16, '0');
const hex = (word: number): string => word.toString(16).padStart(8, '0');

function pageOf(pool: Pool, id: number): Fields {
  const root = pool.newestRoot();
  const page = pool.page(root, id);
  const table = { root: root.number, slot: root.slots[id] ?? 0, references: root.references[id] ?? 0 };
  return typeof page === 'string' ? { ...table, damaged: page } : { ...table, ...pageFields(page) };
}

/** A word of one of a file's tables, of which each page has `perPage`. */
function wordOf(
  pool: Pool,
  root: Checkpoint,
  at: { pages: Uint32Array; perPage: number; slot: number },
): number | string {
  const id = at.pages[Math.floor(at.slot / at.perPage)] ?? 0;
  if (id === 0) return 0;
  const page = pool.page(root, id);
  return typeof page === 'string' ? `page ${id}: ${page}` : (page.words[at.slot % at.perPage] ?? 0);
}

function fileOf(pool: Pool, number: number): Fields {
  const root = pool.newestRoot();
  const file = root.files.find(({ fileNumber }) => fileNumber === number);
  const name = `extents/${String(number).padStart(7, '0')}.dat`;
  const size = pool.size(name);
  const onDisk = size === null ? { damaged: `pool/${name} is missing` } : { 'bytes on disk': size };
  if (file === undefined) return { 'not named by root': root.number, ...onDisk };
  return { ...fileFields(file), ...onDisk };
}

function extentOf(pool: Pool, address: number): Fields {
  const root = pool.newestRoot();
  const [number, slot] = [Math.floor(address / SLOTS_PER_FILE), address % SLOTS_PER_FILE];
  const file = root.files.find(({ fileNumber }) => fileNumber === number);
  const bytes = pool.part(`extents/${String(number).padStart(7, '0')}.dat`, slot * EXTENT_BYTES, EXTENT_BYTES);
  const whole = new Uint8Array(EXTENT_BYTES);
  if (bytes !== null) whole.set(bytes);
  const sum = file === undefined ? 0 : wordOf(pool, root, { pages: file.sums, perPage: SUMS_PER_PAGE, slot });
  const found = crc32(whole) || 1;
  const isWrong = typeof sum === 'number' && sum !== 0 && sum !== found;
  return {
    'file number': number,
    slot,
    ...(file === undefined ? { 'not named by root': root.number } : {}),
    references:
      file === undefined ? 0 : wordOf(pool, root, { pages: file.references, perPage: REFERENCES_PER_PAGE, slot }),
    sum: typeof sum === 'string' ? sum : sum === 0 ? 'not sealed' : hex(sum),
    'bytes that can be read': bytes?.length ?? 0,
    'CRC-32 of its bytes': bytes === null ? 'its file is missing' : hex(found),
    'marked as damaged': root.damaged.includes(address),
    ...(isWrong ? { damaged: 'its bytes do not have its sum' } : {}),
  };
}

/** The way from the object down to the entry. */
function mapOf(pool: Pool, id: string, offset: number): Fields {
  const root = pool.newestRoot();
  const object = root.objects.find((one) => one.id === id);
  if (object === undefined)
    throw new Nothing(`root ${root.number} has no volume or snapshot ${id}; see \`root ${root.number}\``);
  const index = Math.floor(offset / EXTENT_BYTES);
  const leafIndex = Math.floor(index / LEAF_ENTRIES);
  const way: Fields[] = [];
  const about = { kind: object.kind, 'size in bytes': object.sizeBytes, height: object.height, leaf: leafIndex, way };
  let next = object.root;
  for (let level = object.height; level >= 0; level -= 1) {
    if (next === 0) return { ...about, entry: 'a hole: nothing is mapped below' };
    const page = pool.page(root, next);
    const step = { level, page: next, references: root.references[next] ?? 0 };
    if (typeof page === 'string') {
      way.push({ ...step, damaged: page });
      return about;
    }
    if (page.type !== (level === 0 ? 'leaf' : 'inner')) {
      way.push({ ...step, damaged: `it is of type ${page.type}` });
      return about;
    }
    if (level === 0) {
      way.push(step);
      return { ...about, entry: entryFields(page, index % LEAF_ENTRIES) };
    }
    const child = Math.floor(leafIndex / 1024 ** (level - 1)) % 1024;
    way.push({ ...step, child });
    next = page.words[child] ?? 0;
  }
  return about;
}

function journalOf(pool: Pool): Fields {
  return Object.fromEntries(HALVES.map((name) => [name, halfOf(pool.bytes(name))]));
}

/** Frames and bad places, as they lie. */
function halfOf(bytes: Uint8Array | null): Json {
  if (bytes === null) return [{ damaged: 'it is missing' }];
  const found: Fields[] = [];
  let last: number | null = null;
  for (let at = 0; at < bytes.length; ) {
    const frame = decodeFrame(bytes, at);
    if (frame === 'damaged' || frame === 'newer') found.push({ 'at byte': at, damaged: `a frame that is ${frame}` });
    if (typeof frame === 'string') {
      at += FRAME_ALIGN;
      continue;
    }
    const note = last === null || frame.sequence === last + 1 ? {} : { note: 'does not follow the one before' };
    const records = decodeRecords(frame.words);
    const shown = records === null ? { damaged: 'its records do not add up' } : { records: records.map(recordFields) };
    found.push({ 'at byte': at, sequence: frame.sequence, ...note, ...shown });
    last = frame.sequence;
    at += frame.sizeBytes;
  }
  return found;
}

function recordFields(record: EngineRecord): Fields {
  if (record.type === 'changes') return { ...record, changes: changesOf(record.changes) };
  if (record.type === 'sums') return { ...record, pairs: [...record.pairs] };
  if (record.type === 'damage') return { ...record, addresses: [...record.addresses] };
  return { ...record };
}

function changesOf(words: Uint32Array): Fields[] {
  return Array.from({ length: words.length / CHANGE_WORDS }, (_, index) => {
    const [entry = 0, extent = 0, blocks = 0, base = 0] = words.subarray(index * CHANGE_WORDS);
    return { index: entry, extent, 'present bits': bits(blocks & 0xffff), base, 'base mask': bits(blocks >>> 16) };
  });
}

/** By the process id in the lock file: taking the lock itself could keep a daemon from starting. */
function sayIfServed(data: string): void {
  const path = join(data, 'lock');
  const pid = existsSync(path) ? Number.parseInt(readFileSync(path, 'utf8'), 10) : Number.NaN;
  try {
    if (Number.isNaN(pid)) return;
    process.kill(pid, 0);
    process.stderr.write(`inspect: process ${pid} may be serving this pool: what is shown may be moving\n`);
  } catch {
    // Gone, as after every stop.
  }
}

// ---- the command -----------------------------------------------------------------------------------------------------

function numberOf(text: string | undefined, what: string): number {
  if (text === undefined || !/^\d{1,15}$/.test(text))
    throw new Nothing(`${what} is a whole number, not "${text ?? ''}"\n${USAGE}`);
  return Number(text);
}

function fieldsOf(pool: Pool, verb: string | undefined, [first, second]: readonly string[]): Fields {
  switch (verb) {
    case 'header':
      return header(pool);
    case 'roots':
      return Object.fromEntries(
        pool.roots().map(({ file, found }) => {
          const damage = damageOf(found);
          return [file, damage ?? (found === null || 'kind' in found ? {} : summary(found))];
        }),
      );
    case 'root':
      return rootOf(pool, numberOf(first, 'the number of a root'));
    case 'page':
      return pageOf(pool, numberOf(first, 'the id of a page'));
    case 'file':
      return fileOf(pool, numberOf(first, 'the number of an extent file'));
    case 'journal':
      return journalOf(pool);
    case 'map':
      return mapOf(pool, first ?? '', numberOf(second, 'an offset'));
    case 'extent':
      return extentOf(pool, numberOf(first, 'the address of an extent'));
    default:
      throw new Nothing(USAGE);
  }
}

/** Indented lines; short objects on one. */
function* linesOf(value: Fields, indent = ''): Generator<string> {
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== 'object' || item === null) yield `${indent}${key}: ${item}`;
    else if (!Array.isArray(item)) {
      yield `${indent}${key}:`;
      yield* linesOf(item as Fields, `${indent}  `);
    } else if (item.every((one) => typeof one !== 'object')) yield `${indent}${key}: ${item.join(' ')}`;
    else {
      yield `${indent}${key}:`;
      for (const one of item) yield `${indent}  ${rowOf(one)}`;
    }
  }
}

function rowOf(value: Json): string {
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.entries(value)
    .map(([key, item]) => `${key} ${typeof item === 'object' ? JSON.stringify(item) : item}`)
    .join(', ');
}

/** Returns the exit code: 0 printed, 1 there is nothing to print. */
export function main(
  args: readonly string[],
  print = (text: string): unknown => process.stdout.write(`${text}\n`),
): number {
  const [data, verb, ...rest] = args.filter((arg) => arg !== '--json');
  try {
    if (data === undefined) throw new Nothing(USAGE);
    const pool = new Pool(data);
    sayIfServed(data);
    const fields = fieldsOf(pool, verb, rest);
    if (args.includes('--json')) print(JSON.stringify(fields, null, 2));
    else for (const line of linesOf(fields)) print(line);
    return 0;
  } catch (error) {
    if (!(error instanceof Nothing)) throw error;
    process.stderr.write(`inspect: ${error.message}\n`);
    return 1;
  }
}
