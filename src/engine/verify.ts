/** The bytes of sealed extents against their sums, whole and in the order in which they lie. Reads only; marks nothing. */

import { type Files, isDiskError, type OpenFile } from '../base/files.ts';
import { extentSum, SUMS_PER_PAGE } from '../format/page.ts';
import { EXTENT_BYTES, SLOTS_PER_FILE } from '../native/plane.ts';
import { extentPath } from './space.ts';
import type { State, StoredFile } from './state.ts';

export type Progress = (doneBytes: number, totalBytes: number) => void;

export type Verified = {
  /** Extents whose bytes were read and have their sum. */
  readonly sound: ReadonlySet<number>;
  /** What is wrong with the others, by address. */
  readonly bad: ReadonlyMap<number, string>;
};

/** `readable` says which pages of sums there are; the others were found already. */
export function verifySums(
  files: Files,
  state: State,
  options: { readable: (pageId: number) => boolean; onProgress: Progress },
): Verified {
  const sound = new Set<number>();
  const bad = new Map<number, string>();
  const stored = [...state.files.values()].sort((one, other) => one.fileNumber - other.fileNumber);
  let total = 0;
  for (const file of stored) for (const _ of sealedIn(state, file, options.readable)) total += EXTENT_BYTES;
  let done = 0;
  const bytes = new Uint8Array(EXTENT_BYTES);
  for (const file of stored) {
    const path = extentPath(file.fileNumber);
    const open = files.exists(path) ? files.open(path, 'read') : null;
    try {
      for (const { address, sum } of sealedIn(state, file, options.readable)) {
        const problem = open === null ? 'its file is missing' : problemOf(open, { address, sum, bytes });
        if (problem === null) sound.add(address);
        else bad.set(address, problem);
        done += EXTENT_BYTES;
        options.onProgress(done, total);
      }
    } finally {
      open?.close();
    }
  }
  return { sound, bad };
}

function* sealedIn(
  state: State,
  file: StoredFile,
  readable: (pageId: number) => boolean,
): Generator<{ address: number; sum: number }> {
  for (const [index, id] of file.sums.entries()) {
    if (id === 0 || !readable(id)) continue;
    const first = file.fileNumber * SLOTS_PER_FILE + index * SUMS_PER_PAGE;
    for (const [at, sum] of state.pages.get(id).words.entries()) if (sum !== 0) yield { address: first + at, sum };
  }
}

function problemOf(file: OpenFile, { address, sum, bytes }: { address: number; sum: number; bytes: Uint8Array }) {
  try {
    const count = file.read((address % SLOTS_PER_FILE) * EXTENT_BYTES, bytes);
    // Behind the end of a file are zeros.
    bytes.fill(0, count);
  } catch (error) {
    if (!isDiskError(error) || !(error instanceof Error)) throw error;
    return `it cannot be read: ${error.message}`;
  }
  const found = extentSum(bytes);
  return found === sum ? null : `its bytes have sum ${hex(found)}, not ${hex(sum)}`;
}

function hex(sum: number): string {
  return sum.toString(16).padStart(8, '0');
}
