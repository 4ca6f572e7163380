import { describe, expect, it } from 'vitest';
import { decodeFrame } from '../../src/format/frame.ts';
import { Journal, type JournalStart } from '../../src/journal/journal.ts';
import { SimDisk } from '../sim/files.ts';

const HALF = 4096;
const PATHS = ['journal.0', 'journal.1'] as const;
const EMPTY: JournalStart = { sequence: 0, half: 0, offset: 0, isOtherFree: true };

type Bench = { disk: SimDisk; journal: Journal; failures: Error[]; wants: () => number };

async function newJournal(start: JournalStart = EMPTY): Promise<Bench> {
  const disk = new SimDisk({ seed: 1, totalBytes: 2 ** 20 });
  const [zero, one] = PATHS.map((path) => disk.open(path, 'create'));
  if (zero === undefined || one === undefined) throw new Error('two halves');
  for (const file of [zero, one]) {
    file.write(0, new Uint8Array(HALF));
    await file.sync();
  }
  const failures: Error[] = [];
  let wants = 0;
  const journal = new Journal([zero, one], HALF, start, {
    failure: (error) => failures.push(error),
    full: () => {
      wants += 1;
    },
  });
  return { disk, journal, failures, wants: () => wants };
}

/** A record that fills a frame of 512 bytes alone, or shares one. */
function record(mark: number, words = 2): Uint32Array {
  const result = new Uint32Array(words);
  result[0] = mark;
  return result;
}

/** Frames of a half that follow each other: sequence and marks of their records. */
function frames(disk: SimDisk, path: string): number[] {
  const file = disk.open(path, 'read');
  const bytes = new Uint8Array(file.size());
  file.read(0, bytes);
  const found: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const frame = decodeFrame(bytes, at);
    if (typeof frame === 'string' || (found.length > 0 && frame.sequence !== (found.at(-1) ?? 0) + 1)) break;
    found.push(frame.sequence);
    at += frame.sizeBytes;
  }
  return found;
}

async function turns(count = 10): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}

describe('the journal', () => {
  it('puts everything that comes while a sync runs into one frame', async () => {
    const { disk, journal } = await newJournal();
    disk.isStalled = true;
    const first = journal.append([record(1)]);
    await turns();
    const others = [2, 3, 4].map((mark) => journal.append([record(mark)]));
    disk.isStalled = false;
    disk.releaseSyncs();
    await Promise.all([first, ...others]);
    expect(frames(disk, 'journal.0')).toEqual([1, 2]);
  });

  it('answers nobody before the sync of their frame, and everybody in order', async () => {
    const { disk, journal } = await newJournal();
    disk.isStalled = true;
    const answered: number[] = [];
    for (const mark of [1, 2, 3]) void journal.append([record(mark, 100)]).then(() => answered.push(mark));
    await turns();
    expect(answered).toEqual([]);
    disk.isStalled = false;
    disk.releaseSyncs();
    await turns();
    expect(answered).toEqual([1, 2, 3]);
  });

  it('writes a frame only after the one before is durable', async () => {
    const { disk, journal } = await newJournal();
    disk.isStalled = true;
    void journal.append([record(1, 100)]);
    await turns();
    void journal.append([record(2, 100)]);
    await turns();
    expect(frames(disk, 'journal.0')).toEqual([1]);
  });

  it('goes to the other half after a mark, and back after the next', async () => {
    const { disk, journal } = await newJournal();
    await journal.append([record(1)]);
    expect(journal.mark()).toBe(1);
    journal.release();
    await journal.append([record(2)]);
    await journal.append([record(3)]);
    expect(frames(disk, 'journal.0')).toEqual([1]);
    expect(frames(disk, 'journal.1')).toEqual([2, 3]);
    expect(journal.mark()).toBe(3);
    journal.release();
    await journal.append([record(4)]);
    expect(frames(disk, 'journal.0')).toEqual([4]);
  });

  it('does not write over frames that no durable checkpoint holds', async () => {
    const { disk, journal } = await newJournal();
    await journal.append([record(1)]);
    journal.mark();
    // Its checkpoint runs; the other half fills up meanwhile.
    let done = 0;
    for (let mark = 2; mark < 20; mark += 1) void journal.append([record(mark, 110)]).then(() => (done += 1));
    await turns();
    expect(frames(disk, 'journal.0')).toEqual([1]);
    expect(frames(disk, 'journal.1')).toHaveLength(HALF / 512);
    expect(done).toBe(HALF / 512);
  });

  /**
   * A burst that filled the half before any commit had moved the mark where a checkpoint begins left everybody waiting for a checkpoint that
   * nobody had asked for. So did a half that filled up while the checkpoint that had led to it was still running.
   */
  it('asks for a checkpoint when the next frame has no room, and goes on after it', async () => {
    const { disk, journal, wants } = await newJournal();
    let done = 0;
    for (let mark = 0; mark < 12; mark += 1) void journal.append([record(mark, 110)]).then(() => (done += 1));
    await turns();
    expect([done, wants()]).toEqual([8, 1]);
    journal.mark();
    await turns();
    // Everything waiting is in that checkpoint, but not before it is durable.
    expect(done).toBe(8);
    journal.release();
    await turns();
    expect(done).toBe(12);
    expect(frames(disk, 'journal.1')).toEqual([9, 10, 11, 12]);
  });

  it('asks again when the half of a running checkpoint fills up too', async () => {
    const { journal, wants } = await newJournal();
    await journal.append([record(1)]);
    journal.mark();
    let done = 0;
    for (let mark = 0; mark < 10; mark += 1) void journal.append([record(mark, 110)]).then(() => (done += 1));
    await turns();
    expect([done, wants()]).toEqual([8, 1]);
    journal.release();
    await turns();
    expect([done, wants()]).toEqual([8, 2]);
    journal.mark();
    journal.release();
    await turns();
    expect(done).toBe(10);
  });

  it('stays where it is when its checkpoint is given up', async () => {
    const { disk, journal } = await newJournal();
    await journal.append([record(1)]);
    journal.mark();
    journal.unmark();
    await journal.append([record(2)]);
    expect(frames(disk, 'journal.0')).toEqual([1, 2]);
    journal.mark();
    await journal.append([record(3)]);
    // Too late: frames after the mark are in the other half already.
    journal.unmark();
    await journal.append([record(4)]);
    expect(frames(disk, 'journal.1')).toEqual([3, 4]);
    journal.mark();
    await journal.append([record(5)]);
    expect(frames(disk, 'journal.1')).toEqual([3, 4, 5]);
  });

  it('after a crash with frames in both halves only frees the other one first', async () => {
    const { disk, journal } = await newJournal({ sequence: 9, half: 1, offset: 1024, isOtherFree: false });
    await journal.append([record(1)]);
    journal.mark();
    await journal.append([record(2)]);
    expect(frames(disk, 'journal.0')).toEqual([]);
    journal.release();
    journal.mark();
    await journal.append([record(3)]);
    expect(frames(disk, 'journal.0')).toEqual([12]);
  });

  it.each(['write', 'sync'] as const)(
    'that fails at a %s acknowledges nothing any more, and says so once',
    async (operation) => {
      const { disk, journal, failures } = await newJournal();
      await journal.append([record(1)]);
      disk.fail(operation, /journal/, 'EIO', 1);
      const results = await Promise.allSettled([journal.append([record(2)]), journal.append([record(3, 200)])]);
      expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      await expect(journal.append([record(4)])).rejects.toThrow('EIO');
      expect(failures).toHaveLength(1);
    },
  );

  it('refuses an append that would not fit into an empty half', async () => {
    const { journal } = await newJournal();
    expect(() => journal.append([record(1, HALF / 4)])).toThrow('fits into one half');
  });
});
