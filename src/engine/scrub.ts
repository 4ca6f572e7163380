/**
 * Reads what nobody reads and says what the disk has changed. One pass looks at every page, gives a sum to each extent that a snapshot
 * keeps (sealing it), and compares those that have one with their bytes on the disk; at a bounded rate, and never two at once.
 *
 * What a snapshot shows is not written in place while that snapshot is there: no leaf with it is given to the plane as own. So bytes that
 * were read while it was there, and is still, are the bytes to be kept. Who makes an extent writable again (plane-servant.ts) takes its
 * sum away first, durably.
 */
import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { type Files, isDiskError } from '../base/files.ts';
import { extentSum, type Page, SLOT_BYTES, SUMS_PER_PAGE } from '../format/page.ts';
import type { EngineRecord } from '../format/record.ts';
import { BLOCK_BYTES, EXTENT_BYTES, LEAF_ENTRIES, type Plane, SLOTS_PER_FILE } from '../native/plane.ts';
import type { Damage } from './damage.ts';
import type { PoolSettings } from './settings.ts';
import { whoShows } from './shown.ts';
import { extentPath } from './space.ts';
import type { State, StoredObject } from './state.ts';
import type { Finding, Place, ScrubStatus, StoreEvent } from './volume-store.ts';

/** Read by one call: 1 MiB. */
const RUN_EXTENTS_MAX = 16;
/** Looked at in one turn. */
const PAGES_PER_TURN = 16;
const PACE_MS = 100;
const FINDINGS_MAX = 1000;
/** From the start of the daemon to the first pass. */
const FIRST_AFTER_MS = 3600 * 1000;

/** The engine is closing; nothing has gone wrong. */
class Stopped extends Error {}

export class Scrubber {
  readonly #files: Files;
  readonly #state: State;
  readonly #plane: Plane;
  readonly #clock: Clock;
  readonly #append: (records: EngineRecord[]) => Promise<void>;
  readonly #damage: Damage;
  readonly #rootProblem: () => string | null;
  readonly #settings: Pick<PoolSettings, 'scrubBytesPerSecond' | 'scrubIntervalMs'>;
  readonly #onEvent: (event: StoreEvent) => void;
  #running: Promise<void> | null = null;
  #isStopping = false;
  #owedBytes = 0;
  #wake: (() => void) | null = null;
  #startedAt: number | null = null;
  #endedAt: number | null = null;
  #dueAt: number;
  #pass = { readBytes: 0, pages: 0, sealed: 0, compared: 0 };
  #findings: Finding[] = [];
  /** Pages that were walked for a snapshot, which keeps them while it is there. */
  readonly #walked = new Map<number, StoredObject>();

  constructor(parts: {
    files: Files;
    state: State;
    plane: Plane;
    clock: Clock;
    append: (records: EngineRecord[]) => Promise<void>;
    damage: Damage;
    rootProblem: () => string | null;
    settings: Pick<PoolSettings, 'scrubBytesPerSecond' | 'scrubIntervalMs'>;
    onEvent: (event: StoreEvent) => void;
  }) {
    this.#files = parts.files;
    this.#state = parts.state;
    this.#plane = parts.plane;
    this.#clock = parts.clock;
    this.#append = parts.append;
    this.#damage = parts.damage;
    this.#rootProblem = parts.rootProblem;
    this.#settings = parts.settings;
    this.#onEvent = parts.onEvent;
    // Before the first client reads.
    parts.damage.mark([...parts.state.damaged]);
    // When the last pass before this start ended is not kept: a daemon that is restarted often must come to one too.
    this.#dueAt = parts.clock.now() + Math.min(parts.settings.scrubIntervalMs, FIRST_AFTER_MS);
  }

  /** Who shows what was known to be damaged before the start. */
  begin(): Promise<void> {
    return this.#find([...this.#state.damaged], 'it was found damaged before the daemon started');
  }

  /** Begins a pass unless one runs; resolves when it has ended. Fails when the pool does. */
  run(): Promise<void> {
    if (this.#isStopping) throw new Failure('shutting_down');
    this.#running ??= this.#passOnce().finally(() => {
      this.#running = null;
      this.#endedAt = this.#clock.now();
      this.#dueAt = this.#endedAt + this.#settings.scrubIntervalMs;
    });
    return this.#running;
  }

  get isDue(): boolean {
    const { scrubIntervalMs } = this.#settings;
    if (this.#running !== null || this.#isStopping || scrubIntervalMs === 0) return false;
    return this.#clock.now() >= this.#dueAt;
  }

  status(): ScrubStatus {
    const { readBytes, pages, sealed, compared } = this.#pass;
    return {
      isRunning: this.#running !== null,
      startedAt: this.#startedAt,
      endedAt: this.#running === null ? this.#endedAt : null,
      readBytes,
      pages,
      sealedBytes: sealed * EXTENT_BYTES,
      comparedBytes: compared * EXTENT_BYTES,
      damagedBytes: this.#state.damaged.size * EXTENT_BYTES,
      findings: this.#findings.filter(({ address }) => address === null || this.#state.damaged.has(address)),
    };
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#wake?.();
    await this.#running?.catch(() => {});
  }

  async #passOnce(): Promise<void> {
    this.#startedAt = this.#clock.now();
    this.#pass = { readBytes: 0, pages: 0, sealed: 0, compared: 0 };
    this.#findings = [];
    this.#owedBytes = 0;
    const stopPace = this.#clock.every(PACE_MS, () => this.#pay());
    try {
      // Said again: a backup may have come that mends it.
      await this.#find([...this.#state.damaged], 'it is known to be damaged');
      const problem = this.#rootProblem();
      if (problem !== null) this.#report({ path: 'pool/checkpoint', reason: problem, address: null, shown: [] });
      await this.#lookAtPages();
      await this.#seal();
      await this.#compare();
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
    } finally {
      stopPace();
    }
  }

  // ---- pages ---------------------------------------------------------------------------------------------------------

  async #lookAtPages(): Promise<void> {
    const bad = new Map<number, string>();
    let turn = 0;
    for (const id of this.#state.pages.ids()) {
      const problem = this.#state.pages.problemOnDisk(id);
      if (problem !== null) bad.set(id, problem);
      this.#pass.pages += 1;
      turn += 1;
      if (turn % PAGES_PER_TURN === 0) await this.#pace(PAGES_PER_TURN * SLOT_BYTES);
    }
    if (bad.size === 0) return;
    const { pages } = await whoShows(
      { state: this.#state, clock: this.#clock },
      { extents: new Set(), pages: new Set(bad.keys()) },
    );
    for (const [id, reason] of bad)
      this.#report({ path: 'pool/pages', reason: `page ${id}: ${reason}`, address: null, shown: pages.get(id) ?? [] });
  }

  // ---- sealing -------------------------------------------------------------------------------------------------------

  async #seal(): Promise<void> {
    for (const [id, snapshot] of this.#walked) if (!this.#state.isThere(snapshot)) this.#walked.delete(id);
    for (const object of [...this.#state.objects.values()]) {
      if (object.kind === 'snapshot' && object.root !== 0) await this.#sealBelow(object, object.root);
    }
  }

  async #sealBelow(snapshot: StoredObject, id: number): Promise<void> {
    const keeper = this.#walked.get(id);
    if ((keeper !== undefined && this.#state.isThere(keeper)) || !this.#state.isThere(snapshot)) return;
    const page = this.#page(id);
    if (page === null) return;
    await this.#pace(SLOT_BYTES);
    if (page.type === 'leaf') await this.#asFarAsReadable(() => this.#sealLeaf(snapshot, page));
    // A snapshot's pages do not change.
    else for (const child of page.words) if (child !== 0) await this.#sealBelow(snapshot, child);
    if (this.#state.isThere(snapshot)) this.#walked.set(id, snapshot);
  }

  /** Null: it cannot be read, which the look at the pages has said. */
  #page(id: number): Page | null {
    try {
      return this.#state.pages.get(id);
    } catch (error) {
      if (error instanceof Failure) return null;
      throw error;
    }
  }

  /** A table that cannot be read keeps what stands in it from being changed: the rest of the pool is looked at all the same. */
  async #asFarAsReadable(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
    }
  }

  async #sealLeaf(snapshot: StoredObject, leaf: Page): Promise<void> {
    const addresses = new Set<number>();
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      for (const address of [leaf.words[position * 2] ?? 0, leaf.bases[position] ?? 0])
        if (address !== 0 && this.#wantsSum(address)) addresses.add(address);
    }
    for (const run of runsOf([...addresses])) {
      const sums = await this.#sumsOf(run);
      // Gone: somebody may have begun to write there while the bytes were read.
      if (!this.#state.isThere(snapshot)) return;
      await this.#keep(run, sums);
      for (const address of run.filter((_, index) => sums[index] === 0)) {
        // A bus error is not the disk's.
        const [sum = 0] = await this.#sumsOf([address]);
        if (!this.#state.isThere(snapshot)) return;
        if (sum === 0) await this.#condemn([address], 'the disk cannot read it');
        else await this.#keep([address], [sum]);
      }
    }
  }

  async #keep(run: readonly number[], sums: ArrayLike<number>): Promise<void> {
    const pairs = run.flatMap((address, index) => {
      const sum = sums[index] ?? 0;
      return sum !== 0 && this.#wantsSum(address) ? [address, sum] : [];
    });
    if (pairs.length > 0) await this.#append([{ type: 'sums', pairs: Uint32Array.from(pairs) }]);
    this.#pass.sealed += pairs.length / 2;
  }

  #wantsSum(address: number): boolean {
    try {
      return !this.#state.damaged.has(address) && this.#state.sumOf(address) === 0;
    } catch (error) {
      if (error instanceof Failure) return false;
      throw error;
    }
  }

  // ---- comparing -----------------------------------------------------------------------------------------------------

  async #compare(): Promise<void> {
    for (const file of [...this.#state.files.values()]) {
      for (const [index, id] of [...file.sums].entries()) {
        // Removed meanwhile, its page would be another's by now.
        const page = id === 0 || this.#state.files.get(file.fileNumber) !== file ? null : this.#page(id);
        if (page === null) continue;
        const first = file.fileNumber * SLOTS_PER_FILE + index * SUMS_PER_PAGE;
        const sealed: number[] = [];
        for (const [at, sum] of page.words.entries())
          if (sum !== 0 && !this.#state.damaged.has(first + at)) sealed.push(first + at);
        for (const run of runsOf(sealed)) await this.#asFarAsReadable(() => this.#compareRun(run));
      }
    }
  }

  async #compareRun(run: readonly number[]): Promise<void> {
    const kept = run.map((address) => this.#state.sumOf(address));
    const suspects = await this.#suspects(run, kept);
    this.#pass.compared += run.length;
    if (suspects.length === 0) return;
    // Once more: what was freed and taken again in the meantime has another sum or none, and a bus error is not the disk's.
    const again: number[] = [];
    for (const address of suspects) {
      const sum = this.#state.sumOf(address);
      again.push(...(await this.#suspects([address], [sum])));
    }
    await this.#condemn(again, 'its bytes are not those that were sealed');
  }

  /** Those whose bytes do not have the sum that was kept, and still is. */
  async #suspects(run: readonly number[], kept: readonly number[]): Promise<number[]> {
    const sums = await this.#sumsOf(run);
    return run.filter((address, index) => {
      const sum = kept[index] ?? 0;
      return sum !== 0 && sums[index] !== sum && this.#state.sumOf(address) === sum;
    });
  }

  async #sumsOf(run: readonly number[]): Promise<Uint32Array> {
    const first = run[0] ?? 0;
    const sums = await this.#plane.sumRun(Math.floor(first / SLOTS_PER_FILE), first % SLOTS_PER_FILE, run.length);
    await this.#pace(run.length * EXTENT_BYTES);
    return sums;
  }

  // ---- what is found ---------------------------------------------------------------------------------------------------

  /** Nobody reads them any more; then it is written down, and said. */
  async #condemn(addresses: readonly number[], reason: string): Promise<void> {
    if (addresses.length === 0) return;
    this.#damage.mark(addresses);
    await this.#append([{ type: 'damage', isDamaged: true, addresses: Uint32Array.from(addresses) }]);
    // Those without references by now are not.
    this.#damage.unmark(addresses.filter((address) => !this.#state.damaged.has(address)));
    await this.#find(addresses, reason);
  }

  async #find(addresses: readonly number[], reason: string): Promise<void> {
    if (addresses.length === 0) return;
    const parts = { state: this.#state, clock: this.#clock };
    const { extents } = await whoShows(parts, { extents: new Set(addresses), pages: new Set() });
    for (const address of addresses) {
      if (!this.#state.damaged.has(address)) continue;
      const path = extentPath(Math.floor(address / SLOTS_PER_FILE));
      const shown = extents.get(address) ?? [];
      this.#report({ path, reason: `slot ${address % SLOTS_PER_FILE}: ${reason}`, address, shown });
    }
  }

  #report(finding: Finding): void {
    if (this.#findings.length < FINDINGS_MAX) this.#findings.push(finding);
    const { path, reason, address, shown } = finding;
    this.#onEvent({ kind: 'damage', reason: `${path}: ${reason}; shown by ${listOf(shown)}`, address, shown });
  }

  /** Mends an extent with bytes from elsewhere, if they are the right ones. */
  async heal({ address, place, bytes }: { address: number; place: Place; bytes: Uint8Array }): Promise<boolean> {
    const sum = this.#state.damaged.has(address) ? this.#state.sumOf(address) : 0;
    const right = sum === 0 ? null : this.#rightBytes(bytes, sum, address, place);
    if (right === null) return false;
    const file = this.#files.open(extentPath(Math.floor(address / SLOTS_PER_FILE)), 'existing');
    try {
      // In the turn in which it is referred to and sealed: nobody else writes there.
      file.write((address % SLOTS_PER_FILE) * EXTENT_BYTES, right);
      await file.sync();
    } catch (error) {
      if (isDiskError(error)) return false;
      throw error;
    } finally {
      file.close();
    }
    // Freed meanwhile, it is somebody else's by now, and no longer damaged.
    if (!this.#state.damaged.has(address)) return false;
    await this.#append([{ type: 'damage', isDamaged: false, addresses: Uint32Array.of(address) }]);
    this.#damage.unmark([address]);
    return true;
  }

  /** As they are, or with zeros in the blocks that the place does not show of this extent: a write never came there. */
  #rightBytes(bytes: Uint8Array, sum: number, address: number, place: Place): Uint8Array | null {
    if (bytes.length !== EXTENT_BYTES) return null;
    const isRight = (candidate: Uint8Array): boolean => extentSum(candidate) === sum;
    if (isRight(bytes)) return bytes;
    const object = this.#state.byId.get(place.id);
    const index = place.offset / EXTENT_BYTES;
    const leaf = object === undefined ? null : this.#state.leaf(object, Math.floor(index / LEAF_ENTRIES)).page;
    const position = index % LEAF_ENTRIES;
    if (leaf === null || leaf.words[position * 2] !== address) return null;
    const present = leaf.words[position * 2 + 1] ?? 0;
    const masked = bytes.map((byte, at) => ((present >> Math.floor(at / BLOCK_BYTES)) & 1 ? byte : 0));
    return isRight(masked) ? masked : null;
  }

  // ---- pace ------------------------------------------------------------------------------------------------------------

  #pay(): void {
    this.#owedBytes = Math.max(0, this.#owedBytes - (this.#settings.scrubBytesPerSecond * PACE_MS) / 1000);
    if (this.#owedBytes > 0) return;
    this.#wake?.();
    this.#wake = null;
  }

  async #pace(bytes: number): Promise<void> {
    this.#pass.readBytes += bytes;
    await this.#clock.pause();
    if (this.#settings.scrubBytesPerSecond > 0) {
      this.#owedBytes += bytes;
      while (this.#owedBytes > 0 && !this.#isStopping)
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
    if (this.#isStopping) throw new Stopped();
  }
}

/** Neighbours in one file, at most so many as one call reads. */
function runsOf(addresses: number[]): number[][] {
  const runs: number[][] = [];
  let last: number[] = [];
  for (const address of addresses.sort((a, b) => a - b)) {
    const isNext = address === (last.at(-1) ?? -1) + 1 && address % SLOTS_PER_FILE !== 0;
    if (!isNext || last.length === RUN_EXTENTS_MAX) {
      last = [];
      runs.push(last);
    }
    last.push(address);
  }
  return runs;
}

function listOf(shown: readonly Place[]): string {
  if (shown.length === 0) return 'nobody who can be named';
  return shown.map(({ id, kind, offset, length }) => `${kind} ${id} at ${offset} (${length} bytes)`).join(', ');
}
