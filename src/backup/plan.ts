/**
 * From what changed, in bytes, to what has to be done, in chunks: read these, those are zeros. Pure. A chunk that is
 * only partly a hole is read.
 */
import type { ByteRange } from '../backend/backend.ts';

export type Run = { readonly first: number; readonly count: number; readonly kind: 'read' | 'zeros' };

export type PlanOptions = {
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  /** Runs end at multiples of this many chunks. */
  readonly groupChunks: number;
};

/** `ranges` are in order and do not overlap; so are the runs, and each is as long as it may be. */
export function* planRuns(ranges: Iterable<ByteRange>, options: PlanOptions): Generator<Run> {
  for (const run of merged(chunkRuns(ranges, options))) yield* split(run, options.groupChunks);
}

function* chunkRuns(ranges: Iterable<ByteRange>, { sizeBytes, chunkBytes }: PlanOptions): Generator<Run> {
  let next = 0;
  const upTo = function* (end: number, kind: Run['kind']): Generator<Run> {
    if (end <= next) return;
    yield { first: next, count: end - next, kind };
    next = end;
  };
  for (const { offset, length, kind } of ranges) {
    const end = Math.min(offset + length, sizeBytes);
    if (end <= offset) continue;
    next = Math.max(next, Math.floor(offset / chunkBytes));
    const last = Math.ceil(end / chunkBytes);
    if (kind === 'data') {
      yield* upTo(last, 'read');
      continue;
    }
    // The volume's end fills its chunk: what is beyond it reads as zeros too.
    const wholeEnd = end === sizeBytes ? last : Math.floor(end / chunkBytes);
    yield* upTo(Math.min(Math.ceil(offset / chunkBytes), last), 'read');
    yield* upTo(wholeEnd, 'zeros');
    yield* upTo(last, 'read');
  }
}

function* merged(runs: Iterable<Run>): Generator<Run> {
  let held: Run = { first: 0, count: 0, kind: 'zeros' };
  for (const run of runs) {
    if (held.kind === run.kind && held.first + held.count === run.first) {
      held = { ...held, count: held.count + run.count };
      continue;
    }
    if (held.count > 0) yield held;
    held = run;
  }
  if (held.count > 0) yield held;
}

function* split({ first, count, kind }: Run, groupChunks: number): Generator<Run> {
  const end = first + count;
  for (let at = first; at < end; ) {
    const stop = Math.min(end, (Math.floor(at / groupChunks) + 1) * groupChunks);
    yield { first: at, count: stop - at, kind };
    at = stop;
  }
}
