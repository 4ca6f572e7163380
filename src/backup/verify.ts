/**
 * Says whether a backup can be trusted, at three depths: that everything it names is there; that the stored bytes are
 * what was stored (no key needed); that every chunk comes out as it went in. It changes nothing. What could not be read
 * is unknown, never damaged.
 */
import { Failure } from '../base/errors.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import { decodeFooter } from '../format/backup-pack.ts';
import { indexKey, manifestKey, packKey, volumePrefix } from './keys.ts';
import { inOrder } from './pipeline.ts';
import { LeafReader, type Repository } from './repository.ts';
import { keysOf, SpanReader, spansOf } from './restore.ts';

export const DEPTHS = ['manifest', 'stored', 'full'] as const;
export type Depth = (typeof DEPTHS)[number];

/** Problems that are listed; the rest is counted. */
const PROBLEMS_SHOWN_MAX = 100;
const READS_AT_ONCE = 4;

export type Problem = {
  readonly key: string;
  readonly kind: 'missing' | 'corrupt' | 'unknown';
  readonly reason: string;
};

export type VerifyReport = {
  readonly depth: Depth;
  /** `unknown`: nothing is known to be wrong, but not everything could be looked at. */
  readonly outcome: 'good' | 'damaged' | 'unknown';
  readonly objects: number;
  readonly readBytes: number;
  readonly problemCount: number;
  readonly problems: readonly Problem[];
};

export type VerifyOrder = {
  readonly volume: string;
  readonly backup: string;
  readonly depth: Depth;
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
};

class Findings {
  objects = 0;
  readBytes = 0;
  #count = 0;
  #isDamaged = false;
  readonly #problems: Problem[] = [];

  add(problem: Problem): void {
    this.#count += 1;
    if (problem.kind !== 'unknown') this.#isDamaged = true;
    if (this.#problems.length < PROBLEMS_SHOWN_MAX) this.#problems.push(problem);
  }

  /** Failures of the store and damage are findings; anything else is a bug or a stop. */
  addFailure(key: string, error: unknown): void {
    if (!(error instanceof Failure)) throw error;
    if (error.code === 'objects_unavailable') this.add({ key, kind: 'unknown', reason: error.message });
    else if (error.code === 'corrupt')
      this.add({ key: String(error.fields['path'] ?? key), kind: 'corrupt', reason: String(error.fields['reason']) });
    else throw error;
  }

  report(depth: Depth): VerifyReport {
    const outcome = this.#isDamaged ? 'damaged' : this.#count > 0 ? 'unknown' : 'good';
    const { objects, readBytes } = this;
    return { depth, outcome, objects, readBytes, problemCount: this.#count, problems: this.#problems };
  }
}

export async function verifyBackup(repository: Repository, order: VerifyOrder): Promise<VerifyReport> {
  const { volume, backup, depth } = order;
  const findings = new Findings();
  const key = manifestKey(volume, backup);
  try {
    const manifest = await repository.manifest(volume, backup);
    findings.objects += 1;
    if (manifest === null) findings.add({ key, kind: 'missing', reason: 'there is no manifest' });
    else {
      await checkObjects(repository, manifest, findings);
      await checkLeaves(repository, manifest, findings);
      if (depth !== 'manifest') await checkStored(repository, manifest, { findings, order });
      if (depth === 'full') await checkChunks(repository, manifest, { findings, order });
    }
  } catch (error) {
    findings.addFailure(key, error);
  }
  return findings.report(depth);
}

/** Everything that the manifest names is there, as long as it says. */
async function checkObjects(repository: Repository, manifest: Manifest, findings: Findings): Promise<void> {
  const { volume } = manifest;
  const sizes = new Map<string, number>();
  for await (const { key, sizeBytes } of repository.objects.list(volumePrefix(volume))) sizes.set(key, sizeBytes);
  const named: [string, number][] = [
    ...manifest.packs.map(([, owner, sequence, bytes]): [string, number] => [packKey(volume, owner, sequence), bytes]),
    ...manifest.indexes.map(([, owner, sequence, bytes]): [string, number] => [
      indexKey(volume, owner, sequence),
      bytes,
    ]),
  ];
  for (const [key, bytes] of named) {
    findings.objects += 1;
    const size = sizes.get(key);
    if (size === undefined) findings.add({ key, kind: 'missing', reason: 'it is not there' });
    else if (size !== bytes) findings.add({ key, kind: 'corrupt', reason: `it has ${size} bytes instead of ${bytes}` });
  }
}

/** The index is small, so it is read at every depth; and what it says lies inside the packs. */
async function checkLeaves(repository: Repository, manifest: Manifest, findings: Findings): Promise<void> {
  const reader = new LeafReader(repository, manifest);
  const key = manifestKey(manifest.volume, manifest.backup);
  for (const [number] of manifest.leaves) {
    try {
      await reader.read(number);
    } catch (error) {
      findings.addFailure(key, error);
    }
  }
}

type Check = { readonly findings: Findings; readonly order: VerifyOrder };

async function checkStored(repository: Repository, manifest: Manifest, { findings, order }: Check): Promise<void> {
  const total = manifest.packs.reduce((sum, [, , , bytes]) => sum + bytes, 0);
  let done = 0;
  const check = async ([, owner, sequence, bytes, , hash]: Manifest['packs'][number]): Promise<number> => {
    if (order.signal.aborted) throw new Failure('shutting_down');
    const key = packKey(manifest.volume, owner, sequence);
    try {
      const body = await repository.objects.get(key, null);
      if (body === null) return bytes;
      findings.readBytes += body.length;
      const footer = decodeFooter(key, body);
      if (footer.hash.toString('hex') !== hash) {
        findings.add({ key, kind: 'corrupt', reason: 'its footer is that of another pack' });
        return bytes;
      }
      const hashed = await repository.pool.hash({ bytes: ownBytes(body), dataBytes: footer.dataBytes });
      if (!footer.dataHash.equals(hashed.blake3))
        findings.add({ key, kind: 'corrupt', reason: 'its chunks are not what was stored' });
    } catch (error) {
      findings.addFailure(key, error);
    }
    return bytes;
  };
  for await (const bytes of inOrder(each(manifest.packs), READS_AT_ONCE, check)) {
    done += bytes;
    order.onProgress(done, total);
  }
}

async function checkChunks(repository: Repository, manifest: Manifest, { findings, order }: Check): Promise<void> {
  const reader = new SpanReader(repository, manifest, await keysOf(repository, manifest));
  let done = 0;
  const spans = inOrder(readable(spansOf(repository, manifest), findings, manifest), READS_AT_ONCE, async (span) => {
    if (order.signal.aborted) throw new Failure('shutting_down');
    const key = reader.keyOf(span.pack);
    try {
      const { damaged } = await reader.read(span, { wantsBytes: false });
      for (const { chunk, reason } of damaged)
        findings.add({ key, kind: 'corrupt', reason: `chunk ${chunk}: ${reason}` });
    } catch (error) {
      findings.addFailure(key, error);
    }
    findings.readBytes += span.length;
    return span.length;
  });
  for await (const bytes of spans) {
    done += bytes;
    order.onProgress(done, manifest.stored_bytes);
  }
}

/** Leaves that cannot be read were found before; here they only end the walk. */
async function* readable<Item>(
  source: AsyncIterable<Item>,
  findings: Findings,
  manifest: Manifest,
): AsyncGenerator<Item> {
  try {
    yield* source;
  } catch (error) {
    findings.addFailure(manifestKey(manifest.volume, manifest.backup), error);
  }
}

async function* each<Item>(items: readonly Item[]): AsyncGenerator<Item> {
  yield* items;
}

function ownBytes(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}
