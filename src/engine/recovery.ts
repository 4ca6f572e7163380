/**
 * The start of a pool, after a clean stop, a crash or never: newest valid root, then every frame after it. There is no
 * other way to start (law 6). What cannot be trusted is refused with what is wrong; nothing is guessed.
 */

import { Failure } from '../base/errors.ts';
import type { Files, OpenFile } from '../base/files.ts';
import { type Checkpoint, decodeCheckpoint } from '../format/checkpoint.ts';
import { decodeFrame, FRAME_ALIGN, type Frame } from '../format/frame.ts';
import { decodePoolHeader, encodePoolHeader, POOL_HEADER_BYTES, type PoolHeader } from '../format/pool-header.ts';
import { decodeRecords } from '../format/record.ts';
import { CHECKPOINT_VERSION, JOURNAL_VERSION, POOL_VERSION } from '../format/version.ts';
import type { JournalStart } from '../journal/journal.ts';
import { PAGES_PATH, Pages } from './pages.ts';
import { State } from './state.ts';

export const HEADER_PATH = 'pool/header';
export const EXTENTS_PATH = 'pool/extents';
export const CHECKPOINT_PATHS = ['pool/checkpoint.0', 'pool/checkpoint.1'] as const;
export const JOURNAL_PATHS = ['pool/journal.0', 'pool/journal.1'] as const;

export type Recovered = {
  readonly header: PoolHeader;
  readonly state: State;
  readonly pagesFile: OpenFile;
  readonly checkpointNumber: number;
  readonly journal: JournalStart;
  readonly framesReplayed: number;
};

/** Makes an empty pool: everything durable before the header, whose existence makes the pool exist. */
export async function createPool(files: Files, header: PoolHeader): Promise<void> {
  files.makeFolder('pool');
  files.makeFolder(EXTENTS_PATH);
  const zeros = new Uint8Array(1 << 20);
  for (const path of JOURNAL_PATHS) {
    const file = files.open(path, 'create');
    // Written, not only sized: a commit must find its space even when the disk is full.
    for (let at = 0; at < header.journalHalfBytes; at += zeros.length) {
      file.write(at, zeros.subarray(0, Math.min(zeros.length, header.journalHalfBytes - at)));
    }
    await file.sync();
    file.close();
  }
  for (const path of [...CHECKPOINT_PATHS, PAGES_PATH]) {
    const file = files.open(path, 'create');
    file.truncate(0);
    await file.sync();
    file.close();
  }
  await files.syncFolder(EXTENTS_PATH);
  await files.syncFolder('pool');
  await files.syncFolder('.');
  const file = files.open(HEADER_PATH, 'create');
  file.write(0, encodePoolHeader(header));
  await file.sync();
  file.close();
  await files.syncFolder('pool');
}

/** False if there is no pool, or only the remains of a creation that did not end. */
export function poolExists(files: Files): boolean {
  if (files.exists(HEADER_PATH)) {
    const file = files.open(HEADER_PATH, 'read');
    const bytes = new Uint8Array(POOL_HEADER_BYTES);
    const count = file.read(0, bytes);
    file.close();
    if (count === POOL_HEADER_BYTES && bytes.some((byte) => byte !== 0)) return true;
  }
  // Missing, empty or zeros: a crash during creation. With anything of a pool that has been used beside it, it is damage.
  const found = signOfUse(files);
  if (found !== null)
    throw new Failure('corrupt', { path: HEADER_PATH, reason: `it is missing or empty, but ${found}` });
  return false;
}

function signOfUse(files: Files): string | null {
  if (files.exists(EXTENTS_PATH) && files.list(EXTENTS_PATH).length > 0) return 'there are extent files';
  for (const path of CHECKPOINT_PATHS) {
    if (files.exists(path) && readWhole(files, path).length > 0) return `${path} is there`;
  }
  for (const path of JOURNAL_PATHS) {
    if (files.exists(path) && decodeFrame(readWhole(files, path), 0) !== 'none') return `${path} holds frames`;
  }
  return null;
}

export function readHeader(files: Files): PoolHeader {
  const file = files.open(HEADER_PATH, 'read');
  const bytes = new Uint8Array(POOL_HEADER_BYTES);
  const count = file.read(0, bytes);
  file.close();
  const header = decodePoolHeader(bytes.subarray(0, count));
  if (typeof header === 'string') throw new Failure('corrupt', { path: HEADER_PATH, reason: header });
  if ('newer' in header)
    throw new Failure('newer_format', { path: HEADER_PATH, found: header.newer, supported: POOL_VERSION });
  return header;
}

/** `mode` 'read' opens everything read-only: for checks of a stopped pool. */
export function recover(files: Files, options: RecoverOptions): Recovered {
  const header = readHeader(files);
  const root = newestRoot(files, header);
  const journal = readJournal(files, header, root?.sequence ?? 0);
  const built = buildState(files, { header, root, frames: journal.frames }, options);
  return {
    header,
    ...built,
    checkpointNumber: root?.number ?? 0,
    journal: journal.start,
    framesReplayed: journal.frames.length,
  };
}

export type RecoverOptions = { readonly mode: 'existing' | 'read'; readonly cleanPagesMax: number };

/** What a root holds, and frames after it. */
export function buildState(
  files: Files,
  from: { header: PoolHeader; root: Checkpoint | null; frames: readonly Frame[] },
  options: RecoverOptions,
): { state: State; pagesFile: OpenFile } {
  const { header, root, frames } = from;
  if (!files.exists(PAGES_PATH)) throw new Failure('corrupt', { path: PAGES_PATH, reason: 'it is missing' });
  const pagesFile = files.open(PAGES_PATH, options.mode);
  const table = root === null ? null : { slots: root.slots, references: root.references };
  const state = new State(
    new Pages(pagesFile, table, { cleanMax: options.cleanPagesMax, generation: root?.number ?? 0 }),
    header.poolId,
    root,
  );
  for (const frame of frames) {
    const records = decodeRecords(frame.words);
    if (records === null)
      throw new Failure('corrupt', {
        path: 'pool/journal',
        reason: `frame ${frame.sequence} holds records that this program cannot read`,
      });
    for (const record of records) state.apply(record, frame.sequence);
  }
  state.takeFreed();
  state.takeLanded();
  return { state, pagesFile };
}

export function readWhole(files: Files, path: string): Uint8Array {
  if (!files.exists(path)) throw new Failure('corrupt', { path, reason: 'it is missing' });
  const file = files.open(path, 'read');
  const bytes = new Uint8Array(file.size());
  const count = file.read(0, bytes);
  file.close();
  return bytes.subarray(0, count);
}

/**
 * A root that is damaged may be one that was being written when the power went: then the other one, with the journal after
 * it, is the truth. Whether the journal really reaches back to it is checked by `readJournal`.
 */
function newestRoot(files: Files, header: PoolHeader): Checkpoint | null {
  const damages: { path: string; reason: string }[] = [];
  let newest: Checkpoint | null = null;
  for (const path of CHECKPOINT_PATHS) {
    const root = decodeCheckpoint(readWhole(files, path));
    if ('kind' in root) {
      if (root.kind === 'newer')
        throw new Failure('newer_format', { path, found: root.version, supported: CHECKPOINT_VERSION });
      if (root.kind === 'damaged') damages.push({ path, reason: root.reason });
      continue;
    }
    if (root.poolId !== header.poolId)
      throw new Failure('corrupt', { path, reason: `it belongs to pool ${root.poolId}, not ${header.poolId}` });
    if (newest === null || root.number > newest.number) newest = root;
  }
  const [first, second] = damages;
  if (first !== undefined && second !== undefined)
    throw new Failure('corrupt', {
      path: first.path,
      reason: `${first.reason}, and ${second.path} too: ${second.reason}`,
    });
  return newest;
}

type Half = { readonly frames: Frame[]; readonly end: number; readonly newestBehind: number };

/** Frames that follow `after`, without a gap, and where the journal goes on. */
function readJournal(files: Files, header: PoolHeader, after: number): { frames: Frame[]; start: JournalStart } {
  const halves = JOURNAL_PATHS.map((path) => {
    const bytes = readWhole(files, path);
    if (bytes.length < header.journalHalfBytes)
      throw new Failure('corrupt', { path, reason: `it has ${bytes.length} of ${header.journalHalfBytes} bytes` });
    return readHalf(path, bytes);
  }) as [Half, Half];
  const [zero, one] = halves;
  // The half whose frames come first; a half without any comes last.
  const order =
    (one.frames[0]?.sequence ?? Number.POSITIVE_INFINITY) < (zero.frames[0]?.sequence ?? Number.POSITIVE_INFINITY)
      ? [1, 0]
      : [0, 1];
  const frames: Frame[] = [];
  let last = after;
  // Unless a half ends with the last frame: from the start of one, since all that both hold is in the checkpoint. Behind an older
  // frame the next one would look as if some were missing: a checkpoint can overtake frames that were never written.
  let current: 0 | 1 = 0;
  let offset = 0;
  for (const index of order as (0 | 1)[]) {
    for (const frame of halves[index].frames) {
      if (frame.sequence > last + 1) {
        throw new Failure('corrupt', {
          path: JOURNAL_PATHS[index],
          reason: `the checkpoint and the journal end at ${last}, the next frame there is has sequence ${frame.sequence}: a newer checkpoint or a part of the journal is lost`,
        });
      }
      if (frame.sequence === last + 1) {
        frames.push(frame);
        last = frame.sequence;
      }
    }
    const { frames: own, end } = halves[index];
    if (own.at(-1)?.sequence === last) {
      current = index;
      offset = end;
    }
  }
  // A frame is written only after the sync of the one before. So a whole one behind a bad place proves that the place was
  // durable once. What an older use of the half left behind has lower sequences.
  for (const index of [0, 1] as const) {
    const { end, newestBehind } = halves[index];
    if (newestBehind <= last) continue;
    throw new Failure('corrupt', {
      path: JOURNAL_PATHS[index],
      reason: `the frame at byte ${end} (sequence ${last + 1}) is damaged, but frame ${newestBehind} behind it is whole: acknowledged changes would be lost`,
    });
  }
  const other = halves[1 - current];
  const isOtherFree = (other?.frames.at(-1)?.sequence ?? 0) <= after;
  return { frames, start: { sequence: last, half: current, offset, isOtherFree } };
}

/** Frames from the start of a half while each has the sequence after the one before; and the newest one anywhere behind them. */
function readHalf(path: string, bytes: Uint8Array): Half {
  const frames: Frame[] = [];
  let end = 0;
  for (;;) {
    const frame = decodeFrame(bytes, end);
    if (frame === 'newer')
      throw new Failure('newer_format', { path, found: JOURNAL_VERSION + 1, supported: JOURNAL_VERSION });
    if (typeof frame === 'string') break;
    const last = frames.at(-1)?.sequence;
    if (last !== undefined && frame.sequence !== last + 1) break;
    frames.push(frame);
    end += frame.sizeBytes;
  }
  let newestBehind = 0;
  for (let at = end; at < bytes.length; at += FRAME_ALIGN) {
    const frame = decodeFrame(bytes, at);
    if (typeof frame !== 'string') newestBehind = Math.max(newestBehind, frame.sequence);
  }
  return { frames, end, newestBehind };
}
