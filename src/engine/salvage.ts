/**
 * A pool that the normal start refuses: back to a root that somebody chose, and along the journal to its first gap. What was acknowledged
 * after that is lost, so nobody comes here without having said so. Also says which roots there are to choose from.
 */

import { Failure } from '../base/errors.ts';
import type { Files } from '../base/files.ts';
import { type Checkpoint, decodeCheckpoint } from '../format/checkpoint.ts';
import { decodeFrame, FRAME_ALIGN, type Frame } from '../format/frame.ts';
import { CHECKPOINT_VERSION, JOURNAL_VERSION } from '../format/version.ts';
import {
  buildState,
  CHECKPOINT_PATHS,
  JOURNAL_PATHS,
  type Recovered,
  type RecoverOptions,
  readHeader,
  readWhole,
} from './recovery.ts';

export type Salvageable = {
  readonly number: number;
  readonly path: string;
  /** The journal goes on from it without a gap up to this frame. */
  readonly lastFrame: number;
  /** The newest whole frame there is anywhere. */
  readonly newestFrame: number;
};

type Remains = { readonly roots: readonly { path: string; root: Checkpoint }[]; readonly frames: Map<number, Frame> };

/** Newest first; none: both roots are gone, and with them what the pages mean. */
export function salvageable(files: Files): Salvageable[] {
  const remains = remainsOf(files);
  return remains.roots.map(({ path, root }) => {
    const lastFrame = root.sequence + following(remains, root).length;
    return { number: root.number, path, lastFrame, newestFrame: newestOf(remains, root) };
  });
}

/** As `recover`, and which frames are given up. Its journal position is one that no frame on the disk is above. */
export function salvage(files: Files, number: number, options: RecoverOptions): Recovered & { lost: Lost | null } {
  const header = readHeader(files);
  const remains = remainsOf(files);
  const chosen = remains.roots.find(({ root }) => root.number === number)?.root;
  if (chosen === undefined || chosen.poolId !== header.poolId) {
    const known = remains.roots.map(({ root }) => root.number).join(', ');
    const reason = `There is no whole root ${number} in this pool; ${known === '' ? 'there is none at all' : `there are: ${known}`}.`;
    throw new Failure('bad_request', { reason });
  }
  const frames = following(remains, chosen);
  const last = chosen.sequence + frames.length;
  // A newer root may hold frames that are gone from the journal.
  const newest = Math.max(newestOf(remains, chosen), ...remains.roots.map(({ root }) => root.sequence));
  const built = buildState(files, { header, root: chosen, frames }, options);
  for (const { root } of remains.roots) built.state.pages.keepSlots(root.slots);
  return {
    header,
    ...built,
    checkpointNumber: Math.max(...remains.roots.map(({ root }) => root.number)),
    journal: { sequence: newest, half: 0, offset: 0, isOtherFree: true },
    framesReplayed: frames.length,
    lost: newest > last ? { fromFrame: last + 1, toFrame: newest } : null,
  };
}

export type Lost = { readonly fromFrame: number; readonly toFrame: number };

function remainsOf(files: Files): Remains {
  const roots = CHECKPOINT_PATHS.filter((path) => files.exists(path)).flatMap((path) => {
    const root = decodeCheckpoint(readWhole(files, path));
    if ('kind' in root && root.kind === 'newer') throw newer(path, root.version, CHECKPOINT_VERSION);
    return 'kind' in root ? [] : [{ path, root }];
  });
  const frames = new Map<number, Frame>();
  for (const path of JOURNAL_PATHS.filter((half) => files.exists(half))) {
    const bytes = readWhole(files, path);
    for (let at = 0; at < bytes.length; ) {
      const frame = decodeFrame(bytes, at);
      if (frame === 'newer') throw newer(path, JOURNAL_VERSION + 1, JOURNAL_VERSION);
      if (typeof frame !== 'string') frames.set(frame.sequence, frame);
      at += typeof frame === 'string' ? FRAME_ALIGN : frame.sizeBytes;
    }
  }
  return { roots: roots.sort((one, other) => other.root.number - one.root.number), frames };
}

function newer(path: string, found: number, supported: number): Failure {
  return new Failure('newer_format', { path, found, supported });
}

function following({ frames }: Remains, root: Checkpoint): Frame[] {
  const found: Frame[] = [];
  for (let next = frames.get(root.sequence + 1); next !== undefined; next = frames.get(next.sequence + 1))
    found.push(next);
  return found;
}

function newestOf({ frames }: Remains, root: Checkpoint): number {
  let newest = root.sequence;
  for (const sequence of frames.keys()) newest = Math.max(newest, sequence);
  return newest;
}
