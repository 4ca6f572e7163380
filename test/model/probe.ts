/**
 * Looks at what a power failure at this very moment could leave behind, again and again with other luck, while the run goes on: each
 * state of the disk is recovered as a start would, checked, and compared with what the model allows. Changes neither disk nor model.
 */

import { checkState } from '../../src/engine/check.ts';
import { recover } from '../../src/engine/recovery.ts';
import { extentPath } from '../../src/engine/space.ts';
import type { State, StoredObject } from '../../src/engine/state.ts';
import { LEAF_ENTRIES, SLOTS_PER_FILE } from '../../src/native/plane.ts';
import type { CrashView } from '../sim/crash-view.ts';
import type { SimDisk } from '../sim/files.ts';
import { Random } from '../sim/random.ts';
import { BLOCK, type Content, isSame, stampsOf, type Version, ZEROS } from './content.ts';
import type { Thing } from './world.ts';

const BLOCKS_PER_EXTENT = 16;
/** States that are drawn of one moment; those that are the same are looked at once. */
const DRAWS = 64;
/** More than a pool of the model ever has: nothing is read twice. */
const PAGES_MAX = 1 << 16;

export class Probe {
  readonly #random: Random;
  /** Stamps of 4 KiB, while the disk stands still. */
  #stamps = new Map<Uint8Array, Version>();
  readonly #paths = new Map<number, string>();
  /** States that were recovered and compared, each once per moment. */
  crashPoints = 0;
  moments = 0;

  constructor(seed: number) {
    this.#random = new Random(seed ^ 0x5eed);
  }

  /** At one moment. Fails with the first thing that may not be. */
  look(disk: SimDisk, things: ReadonlyMap<string, Thing>, groups: readonly (readonly string[])[]): void {
    this.#stamps = new Map();
    this.moments += 1;
    const seen = new Set<number>();
    for (let draw = 0; draw < DRAWS; draw += 1) {
      const view = disk.crashView(this.#random);
      if (seen.has(view.signature)) continue;
      seen.add(view.signature);
      this.crashPoints += 1;
      this.#compare(view, things, groups);
    }
  }

  #compare(view: CrashView, things: ReadonlyMap<string, Thing>, groups: readonly (readonly string[])[]): void {
    const { state } = recover(view, { mode: 'read', cleanPagesMax: PAGES_MAX });
    const [violation] = checkState(view, state).violations;
    if (violation !== undefined) throw new Error(`check: ${violation.path}: ${violation.reason}`);
    for (const object of state.objects.values()) {
      const thing = things.get(object.id);
      if (thing === undefined) throw new Error(`${object.id} is there and should not be`);
      if (thing.kind !== object.kind) throw new Error(`${object.id} is a ${object.kind}`);
      this.#compareContent(view, state, object, thing);
    }
    for (const thing of things.values()) {
      if (!thing.isDoomed && !thing.isTentative && !state.byId.has(thing.id))
        throw new Error(`${thing.kind} ${thing.id} is lost`);
    }
    for (const group of groups) {
      const open = group.filter((id) => things.get(id)?.isTentative === true);
      const found = open.filter((id) => state.byId.has(id));
      if (open.length === group.length && found.length > 0 && found.length < group.length)
        throw new Error(`of the snapshots ${group.join(' ')} only ${found.join(' ')} are there`);
    }
  }

  #compareContent(view: CrashView, state: State, object: StoredObject, thing: Thing): void {
    const contents: Content[] = [thing.content, ...thing.reverts];
    const read = new Reader(view, state, object, (chunk) => this.#stampsOf(chunk), this.#paths);
    let problem = '';
    for (const content of contents) {
      problem = this.#differs(read, object, content, contents);
      if (problem === '') return;
    }
    throw new Error(`${thing.kind} ${thing.id} ${problem}`);
  }

  /** Blocks of any of the contents: what one of them never had is zeros there. */
  #differs(read: Reader, object: StoredObject, content: Content, all: readonly Content[]): string {
    for (const { blocks } of all) {
      for (const block of blocks.keys()) {
        if (block * BLOCK >= object.sizeBytes) continue;
        const found = read.block(block);
        const allowed = content.versions(block);
        if (allowed.some((version) => version === found || isSame(version, found))) continue;
        return `block ${block}: found ${found.join(',')}, allowed ${allowed.map((version) => version.join(',')).join(' | ')}`;
      }
    }
    return '';
  }

  #stampsOf(chunk: Uint8Array): Version {
    let found = this.#stamps.get(chunk);
    if (found === undefined) {
      found = stampsOf(chunk);
      this.#stamps.set(chunk, found);
    }
    return found;
  }
}

/** Blocks of one object as its map shows them. */
class Reader {
  readonly #view: CrashView;
  readonly #state: State;
  readonly #object: StoredObject;
  readonly #stampsOf: (chunk: Uint8Array) => Version;
  readonly #paths: Map<number, string>;
  #leafIndex = -1;
  #leaf: ReturnType<State['leaf']>['page'] = null;

  constructor(
    view: CrashView,
    state: State,
    object: StoredObject,
    stamps: (chunk: Uint8Array) => Version,
    paths: Map<number, string>,
  ) {
    [this.#view, this.#state, this.#object, this.#stampsOf, this.#paths] = [view, state, object, stamps, paths];
  }

  block(block: number): Version {
    const index = Math.floor(block / BLOCKS_PER_EXTENT);
    const leafIndex = Math.floor(index / LEAF_ENTRIES);
    if (leafIndex !== this.#leafIndex) {
      this.#leaf = this.#state.leaf(this.#object, leafIndex).page;
      this.#leafIndex = leafIndex;
    }
    if (this.#leaf === null) return ZEROS;
    const position = index % LEAF_ENTRIES;
    const bit = 1 << (block % BLOCKS_PER_EXTENT);
    const { words, bases, masks } = this.#leaf;
    if (((words[position * 2 + 1] ?? 0) & bit) !== 0) return this.#shown(words[position * 2] ?? 0, block);
    if (((masks[position] ?? 0) & bit) !== 0) return this.#shown(bases[position] ?? 0, block);
    return ZEROS;
  }

  #shown(extent: number, block: number): Version {
    const fileNumber = Math.floor(extent / SLOTS_PER_FILE);
    let path = this.#paths.get(fileNumber);
    if (path === undefined) {
      path = extentPath(fileNumber);
      this.#paths.set(fileNumber, path);
    }
    const index = (extent % SLOTS_PER_FILE) * BLOCKS_PER_EXTENT + (block % BLOCKS_PER_EXTENT);
    const chunk = this.#view.chunk(path, index);
    return chunk === undefined ? ZEROS : this.#stampsOf(chunk);
  }
}
