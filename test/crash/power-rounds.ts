/**
 * The daemon on a disk that loses what was not flushed, round after round: a writer, snapshots, clones and deletions until the power
 * fails; then the same disk as it may have been left, and everything that was promised is looked at. It says nothing of why the
 * power fails when.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { LosingDisk, type LosingDiskOptions } from '../sim/losing-disk.ts';
import { Random } from '../sim/random.ts';
import { ApiPool, type Json } from '../support/api-pool.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { MountedDisk } from '../support/mounted-disk.ts';
import { run } from '../support/peers.ts';
import { MAIN } from '../support/quarry.ts';
import { contentOf, PrefixWriter, STAMP } from './prefix-writer.ts';

/** Room for the journal, the reserve of 256 MiB, and what the rounds write. */
const DISK_BYTES = 2 * 2 ** 30;
const LOAD_MS = 1200;
/** How many blocks are not flushed when the power fails; if they never are that many, it fails after this time all the same. */
const UNSAFE_BLOCKS = [1, 4, 16, 32];
const UNSAFE_MS = 500;
const SECOND_FAILURE = 0.3;
const POLL = { timeout: 30_000, interval: 20 };
/** Snapshots, and volumes, that live on into later rounds. */
const KEPT = 3;

/** What a user was told of a volume or snapshot, and what it showed when it was first looked at after a crash. */
type Known = {
  readonly kind: 'volumes' | 'snapshots';
  readonly id: string;
  promised: number;
  readonly isMoment: boolean;
  digest: string | null;
  /** Its deletion was asked for: it may be there or not. */
  isDoomed: boolean;
};

export type PowerOptions = {
  readonly seed: number;
  readonly rounds: number;
  readonly format: readonly string[];
  readonly lie?: LosingDiskOptions['lie'];
};

export type PowerResult = { readonly lost: number; readonly torn: number; readonly looked: number };

export async function powerRounds(options: PowerOptions): Promise<PowerResult> {
  const rounds = new PowerRounds(options);
  for (let round = 1; round <= options.rounds; round += 1) {
    try {
      await rounds.round();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`QUARRY_SEED=${options.seed}, round ${round}: ${reason}`, { cause: error });
    }
  }
  return rounds;
}

class PowerRounds implements PowerResult {
  readonly #random: Random;
  readonly #known = new Map<string, Known>();
  #disk: LosingDisk;
  /** Of the next mount only. */
  #format: readonly string[] | null;
  lost = 0;
  torn = 0;
  looked = 0;

  constructor({ seed, format, lie = 'none' }: PowerOptions) {
    this.#random = new Random(seed);
    this.#format = format;
    this.#disk = new LosingDisk({ seed, sizeBytes: DISK_BYTES, stamp: STAMP, lie });
  }

  /** Mount, check, look at what the last power failure left, load, power failure. */
  async round(): Promise<void> {
    const disk = this.#disk;
    await using mounted = await MountedDisk.open(disk, DISK_BYTES, this.#format);
    const isFirst = this.#format !== null;
    this.#format = null;
    const dataDir = `${mounted.path}/data`;
    if (!isFirst) {
      await run(process.execPath, [MAIN, 'check', '--data', dataDir]);
      if (this.#random.chance(SECOND_FAILURE)) return await this.#failAtStart(dataDir);
    }
    const daemon = await startDaemon({ dataDir });
    try {
      await using api = new ApiPool(daemon);
      if (!isFirst) await this.#look(daemon, api);
      await this.#load(daemon, api);
    } finally {
      if (!disk.isOff) this.#powerOff();
      await daemon.kill('SIGKILL').catch(() => {});
      await daemon.stop();
    }
  }

  /** The power fails again while it recovers, or right after. */
  async #failAtStart(dataDir: string): Promise<void> {
    this.#disk.endAt(this.#random.pick(UNSAFE_BLOCKS));
    try {
      const daemon = await startDaemon({ dataDir });
      await daemon.kill('SIGKILL').catch(() => {});
      await daemon.stop();
    } catch (error) {
      if (!this.#disk.isOff) throw error;
    }
    this.#powerOff();
  }

  #powerOff(): void {
    const next = this.#disk.powerOff();
    this.lost += this.#disk.lost;
    this.torn += this.#disk.torn;
    this.#disk = next;
  }

  // ---- load ----------------------------------------------------------------------------------------------------------

  async #load(daemon: Daemon, api: ApiPool): Promise<void> {
    const disk = this.#disk;
    const volume = await this.#made(api, 'volumes', { volume: { size: 1 } }, { promised: 0, isMoment: false });
    const writer = new PrefixWriter(daemon.uri(volume.id), this.#random.below(2 ** 31));
    await writer.flushed(2);
    const disturbing = this.#disturb(api, volume.id, writer).catch((error: unknown) => {
      // The power is off: the request in flight broke, or was told of the disk.
      if (!disk.isOff) throw error;
    });
    // Not a wait for something: the moment is what the seed decides.
    await Promise.race([sleep(this.#random.below(LOAD_MS)), disturbing]);
    disk.endAt(this.#random.pick(UNSAFE_BLOCKS));
    await Promise.race([sleep(UNSAFE_MS), disk.ended]);
    this.#powerOff();
    await daemon.kill('SIGKILL').catch(() => {});
    await Promise.all([writer.ended(), disturbing]);
    volume.promised = writer.promised;
  }

  /** Snapshots, clones and deletions until a request fails. */
  async #disturb(api: ApiPool, volumeId: string, writer: PrefixWriter): Promise<void> {
    for (;;) {
      const { promised } = writer;
      const moment = { promised, isMoment: true };
      const wanted = { snapshot: { volume_id: volumeId, force: true } };
      const snapshot = await this.#made(api, 'snapshots', wanted, moment);
      if (this.#random.chance(0.5)) await this.#made(api, 'volumes', { volume: { snapshot_id: snapshot.id } }, moment);
      const old = [...this.#known.values()].filter(({ id, isDoomed }) => id !== volumeId && !isDoomed);
      if (old.length > 2 * KEPT) await this.#delete(api, this.#random.pick(old));
    }
  }

  async #made(
    api: ApiPool,
    kind: Known['kind'],
    body: object,
    promise: Pick<Known, 'promised' | 'isMoment'>,
  ): Promise<Known> {
    const { id } = await api.make(`/${kind}`, body);
    // What is made of a promise is known once it is `available`; before, only that it will be.
    for (let status = ''; status !== 'available'; ) {
      const { status: code, body: shown } = await api.ask('GET', `/${kind}/${id}`);
      if (code !== 200) throw new Error(`${kind} ${id} is lost: ${code}`);
      status = (Object.values(shown)[0] as Json).status;
      if (status === 'error') throw new Error(`${kind} ${id} is in error`);
    }
    const known: Known = { ...{ kind, id, ...promise }, ...{ digest: null, isDoomed: false } };
    this.#known.set(id, known);
    return known;
  }

  async #delete(api: ApiPool, known: Known): Promise<void> {
    known.isDoomed = true;
    await api.ask('DELETE', `/${known.kind}/${known.id}`);
  }

  // ---- looking -------------------------------------------------------------------------------------------------------

  async #look(daemon: Daemon, api: ApiPool): Promise<void> {
    const stuck = async (): Promise<Json[]> => {
      const all = [...(await api.list('volumes')), ...(await api.list('snapshots'))];
      return all.filter(({ status }) => status !== 'available').map(({ id, status }) => [id, status]);
    };
    await expect.poll(stuck, POLL).toEqual([]);
    const there = new Set([...(await api.list('volumes')), ...(await api.list('snapshots'))].map(({ id }) => id));
    for (const known of [...this.#known.values()]) {
      if (there.delete(known.id)) await this.#compare(daemon, api, known);
      else if (known.isDoomed) this.#known.delete(known.id);
      else throw new Error(`${known.kind} ${known.id} is lost`);
    }
    await this.#shrink(daemon, api, [...there]);
  }

  async #compare(daemon: Daemon, api: ApiPool, known: Known): Promise<void> {
    const isSnapshot = known.kind === 'snapshots';
    const id = isSnapshot ? await this.#temporaryClone(api, known.id) : known.id;
    const digest = await contentOf(daemon.uri(id), known).catch((error: Error) => {
      throw new Error(`${known.kind} ${known.id}: ${error.message}`);
    });
    if (known.digest !== null && known.digest !== digest)
      throw new Error(`${known.kind} ${known.id} has changed since the last round`);
    known.digest = digest;
    this.looked += 1;
    if (isSnapshot) await api.ask('DELETE', `/volumes/${id}`);
  }

  async #temporaryClone(api: ApiPool, snapshotId: string): Promise<string> {
    const { id } = await this.#made(
      api,
      'volumes',
      { volume: { snapshot_id: snapshotId } },
      { promised: 0, isMoment: true },
    );
    this.#known.delete(id);
    return id;
  }

  /** What nobody was told of, and the older half, go; snapshots before volumes, which they belong to. */
  async #shrink(daemon: Daemon, api: ApiPool, untold: readonly string[]): Promise<void> {
    const known = [...this.#known.values()];
    const going = known.slice(0, Math.max(0, known.length - KEPT));
    const ids = new Set([...going.map(({ id }) => id), ...untold]);
    for (const kind of ['snapshots', 'volumes'] as const) {
      for (const { id } of await api.list(kind)) {
        if (!ids.has(id)) continue;
        const { status } = await api.ask('DELETE', `/${kind}/${id}`);
        const one = this.#known.get(id);
        if (status < 300 && one !== undefined) one.isDoomed = true;
      }
    }
    if (daemon.log.includes('"level":60')) throw new Error(`the daemon had to say: ${daemon.log}`);
  }
}
