/** A volume much larger than what is in it: what an incremental backup of it takes, of time and of the daemon's memory. */
import { writeFile } from 'node:fs/promises';
import { BackupDaemon } from './daemon.ts';
import { type Change, KIB, MIB } from './image.ts';
import { Seeded } from './seeded.ts';
import { type Figure, statusMib } from './steps.ts';

const CHANGE_BYTES = 64 * KIB;
const PIECE_BYTES = MIB;
/** Makes the kernel forget the highest resident memory that it has seen. */
const FORGET_PEAK = '5';

export type SparseSizes = { readonly sizeGib: number; readonly mappedMib: number; readonly changedMib: number };
export type SparseFigure = Figure & { readonly name: string; readonly beforeMib: number; readonly peakMib: number };

/** Pieces of 1 MiB, anywhere in the volume. */
function* pieces(places: readonly number[], random: Seeded): Generator<Change> {
  for (const place of places) yield { offset: place * PIECE_BYTES, data: random.data(PIECE_BYTES, 0.5) };
}

function* changes(places: readonly number[], random: Seeded, changedMib: number): Generator<Change> {
  const perPiece = PIECE_BYTES / CHANGE_BYTES;
  const slots = random.shuffled(Array.from({ length: places.length * perPiece }, (_, index) => index));
  for (const slot of slots.slice(0, (changedMib * MIB) / CHANGE_BYTES)) {
    const place = places[Math.floor(slot / perPiece)] ?? 0;
    const offset = place * PIECE_BYTES + (slot % perPiece) * CHANGE_BYTES;
    yield { offset, data: random.data(CHANGE_BYTES, 0.5) };
  }
}

export async function benchSparse(folder: string, sizes: SparseSizes): Promise<SparseFigure[]> {
  const random = new Seeded('sparse');
  const places = new Set<number>();
  while (places.size < sizes.mappedMib) places.add(random.below((sizes.sizeGib * KIB * MIB) / PIECE_BYTES));
  const mapped = [...places].sort((a, b) => a - b);
  const daemon = await BackupDaemon.start(folder);
  try {
    const volume = await daemon.volume('sparse', sizes.sizeGib);
    await daemon.write('sparse', pieces(mapped, random));
    const watched = async (name: string, incremental: boolean): Promise<SparseFigure> => {
      const { pid } = daemon.daemon;
      await writeFile(`/proc/${pid}/clear_refs`, FORGET_PEAK);
      const beforeMib = statusMib(pid, 'VmRSS');
      const { id: _, ...figure } = await daemon.backup(volume, name, { incremental });
      return { ...figure, name, beforeMib, peakMib: statusMib(pid, 'VmHWM') };
    };
    const full = await watched('full', false);
    await daemon.write('sparse', changes(mapped, random, sizes.changedMib));
    const next = await watched('incremental', true);
    await daemon.write('sparse', changes(mapped, random, sizes.changedMib));
    // What the full backup took and the garbage collector has kept is not an incremental's.
    await daemon.restart();
    return [full, next, await watched('incremental after a start', true)];
  } finally {
    await daemon.stop();
  }
}
