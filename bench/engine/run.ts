/**
 * What the engine's own work costs in JavaScript: changes applied, leaves looked up and loaded, maps compared, checkpoints encoded.
 * Everything happens in memory, over a file that is a buffer: the disk is measured by bench/run.ts. It judges nothing.
 */
import Benchmark from 'benchmark';
import type { OpenFile } from '../../src/base/files.ts';
import { diffOf } from '../../src/engine/diff.ts';
import { Pages } from '../../src/engine/pages.ts';
import { LEAF_SPAN_BYTES, State } from '../../src/engine/state.ts';
import { encodeCheckpoint } from '../../src/format/checkpoint.ts';
import { CHANGE_WORDS, LEAF_ENTRIES, SLOTS_PER_FILE } from '../../src/native/plane.ts';

const POOL_ID = '00000000-0000-4000-8000-000000000000';
const CHANGES = 4096;

export type EngineFigure = {
  readonly name: string;
  readonly perSecond: number;
  readonly marginPercent: number;
  readonly nsPerUnit: number;
};

function memoryFile(): OpenFile {
  let bytes = new Uint8Array(1 << 20);
  let end = 0;
  return {
    read(offset, target) {
      const count = Math.max(0, Math.min(target.length, end - offset));
      target.set(bytes.subarray(offset, offset + count));
      return count;
    },
    write(offset, source) {
      end = Math.max(end, offset + source.length);
      if (end > bytes.length) {
        const larger = new Uint8Array(end * 2);
        larger.set(bytes);
        bytes = larger;
      }
      bytes.set(source, offset);
    },
    truncate(sizeBytes) {
      end = sizeBytes;
    },
    size: () => end,
    sync: async () => {},
    close() {},
  };
}

/** A volume with `leaves` full leaves, on extent files of its own. */
class World {
  readonly state: State;
  readonly volume;
  readonly #leaves: number;
  readonly #lastFile: number;
  #checkpoint = 0;

  constructor(leaves: number, cleanMax: number) {
    this.#leaves = leaves;
    this.state = new State(new Pages(memoryFile(), null, { cleanMax, generation: 0 }), POOL_ID, null);
    const files = Math.ceil((leaves * LEAF_ENTRIES) / SLOTS_PER_FILE) + 1;
    this.#lastFile = files;
    for (let fileNumber = 1; fileNumber <= files; fileNumber += 1) {
      this.state.apply({ type: 'file-create', fileNumber, owner: 1 }, 1);
    }
    const sizeBytes = leaves * LEAF_SPAN_BYTES;
    this.state.apply({ type: 'create', number: 1, kind: 'volume', sizeBytes, sourceNumber: 0, id: POOL_ID }, 1);
    const volume = this.state.objects.get(1);
    if (volume === undefined) throw new Error('the volume was just created');
    this.volume = volume;
    for (let leaf = 0; leaf < leaves; leaf += 1) {
      this.change(
        Array.from({ length: LEAF_ENTRIES }, (_, at) => leaf * LEAF_ENTRIES + at),
        0xffff,
      );
    }
  }

  /** These entries show their blocks `present`, in their first extent or in one of the last file. */
  change(indices: readonly number[], present: number, isMoved = false): void {
    const changes = new Uint32Array(indices.length * CHANGE_WORDS);
    indices.forEach((index, at) => {
      const extent = isMoved ? this.#lastFile * SLOTS_PER_FILE + at : SLOTS_PER_FILE + index;
      changes.set([index, extent, present, 0], at * CHANGE_WORDS);
    });
    this.state.apply({ type: 'changes', number: 1, changes }, 2);
    this.state.takeLanded();
    this.state.takeFreed();
  }

  snapshot(number: number): void {
    const id = `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
    const { sizeBytes } = this.volume;
    this.state.apply({ type: 'create', number, kind: 'snapshot', sizeBytes, sourceNumber: 1, id }, 2);
  }

  beginCheckpoint() {
    this.#checkpoint += 1;
    const table = this.state.pages.beginCheckpoint(this.#checkpoint);
    return {
      number: this.#checkpoint,
      sequence: 1,
      poolId: POOL_ID,
      nextObjectNumber: this.state.nextObjectNumber,
      objects: [...this.state.objects.values()],
      files: [...this.state.files.values()],
      drops: this.state.drops,
      damaged: [...this.state.damaged],
      ...table,
    };
  }

  checkpoint(): void {
    this.beginCheckpoint();
    while (this.state.pages.writeSome(64));
    this.state.pages.endCheckpoint();
  }

  spread(count: number): number[] {
    const entries = this.#leaves * LEAF_ENTRIES;
    const step = Math.max(1, Math.floor(entries / count));
    return Array.from({ length: Math.min(count, entries) }, (_, at) => at * step);
  }
}

type Case = { readonly name: string; readonly units: number; run(): void };

function cases(leaves: number): Case[] {
  const resident = new World(leaves, 1 << 20);
  const [dense, sparse] = [
    Array.from({ length: Math.min(CHANGES, leaves * LEAF_ENTRIES) }, (_, at) => at),
    resident.spread(CHANGES),
  ];
  let turn = 0;
  const flip = (): number => {
    turn += 1;
    return turn % 2 === 0 ? 0xffff : 0x7fff;
  };
  // With no room for clean pages every look at another leaf reads and checks it.
  const cold = new World(leaves, 0);
  cold.checkpoint();
  const compared = new World(leaves, 1 << 20);
  compared.snapshot(2);
  compared.change(compared.spread(64), 0x00ff);
  const before = compared.state.objects.get(2) ?? null;
  let leafIndex = 0;
  const nextLeaf = (): number => {
    leafIndex = (leafIndex + 1) % leaves;
    return leafIndex;
  };
  const root = new World(leaves, 1 << 20).beginCheckpoint();
  return [
    { name: 'apply a change, neighbours', units: dense.length, run: () => resident.change(dense, flip()) },
    { name: 'apply a change, far apart', units: sparse.length, run: () => resident.change(sparse, flip()) },
    {
      name: 'apply a change to another extent',
      units: dense.length,
      run: () => resident.change(dense, 0xffff, flip() === 0xffff),
    },
    { name: 'find a leaf in memory', units: 1, run: () => void resident.state.leaf(resident.volume, nextLeaf()) },
    { name: 'find a leaf and read it', units: 1, run: () => void cold.state.leaf(cold.volume, nextLeaf()) },
    { name: 'compare two maps, 64 changes', units: 1, run: () => void diffOf(compared.state, before, compared.volume) },
    { name: 'encode a root, per page', units: root.slots.length, run: () => void encodeCheckpoint(root) },
  ];
}

/** `leaves`: 32 MiB of volume each. `seconds`: per case, at most; 0 runs each once. */
export function benchEngine(options: { leaves: number; seconds: number }): EngineFigure[] {
  return cases(options.leaves).map(({ name, units, run }) => {
    const limits = options.seconds === 0 ? { minSamples: 1, minTime: 0.001, initCount: 1 } : { minSamples: 5 };
    const bench = new Benchmark(name, run, { maxTime: options.seconds, ...limits });
    bench.run({ async: false });
    const { error } = bench as unknown as { error?: Error };
    if (error !== undefined) throw error;
    const nsPerUnit = (bench.stats.mean * 1e9) / units;
    return { name, perSecond: 1e9 / nsPerUnit, marginPercent: bench.stats.rme, nsPerUnit };
  });
}

export function main([seconds = '2']: readonly string[]): number {
  for (const { name, nsPerUnit, marginPercent } of benchEngine({ leaves: 1024, seconds: Number(seconds) })) {
    process.stdout.write(`${name.padEnd(32)} ${nsPerUnit.toFixed(0).padStart(10)} ns  ±${marginPercent.toFixed(1)}%\n`);
  }
  return 0;
}
