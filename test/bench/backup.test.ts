import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { sha256Of } from '../../bench/backup/image.ts';
import { benchImage } from '../../bench/backup/run.ts';
import { benchSparse } from '../../bench/backup/sparse.ts';
import type { Figure, Subject } from '../../bench/backup/steps.ts';
import { describeWith } from '../support/peers.ts';
import { tempFolder } from '../support/temp.ts';

const SMALL = { rounds: 1, imageMib: 32, filesMib: 16, places: 10, incompressible: 0.5 };
const NOTHING: Figure = { seconds: 0, cpuSeconds: 0, readMib: 0, storedMib: 0, objects: 0 };
const TIMEOUT_MS = 180_000;

describeWith(['mkfs.ext4'], 'the benchmark of backups', () => {
  it('backs an image up, what changed of it, and restores it', { timeout: TIMEOUT_MS }, async () => {
    await using folder = await tempFolder();
    const image = join(folder.path, 'image');
    const seen: string[] = [];
    const watching: Subject = {
      name: 'nothing',
      async round({ change, verify }) {
        seen.push(await sha256Of(image));
        await change();
        seen.push(await sha256Of(image));
        await expect(verify(seen[0] ?? '')).rejects.toThrow('nothing restored other bytes');
        return { full: NOTHING, incremental: NOTHING, restore: NOTHING };
      },
    };
    const figures = await benchImage(folder.path, SMALL, [watching]);
    // The next subject finds it as this one did.
    expect(await sha256Of(image)).toBe(seen[0]);
    expect(seen[1]).not.toBe(seen[0]);
    const [round] = figures.rounds.get('quarry') ?? [];
    expect(figures.filledMib).toBeGreaterThan(8);
    expect(figures.changedMib).toBe((2 * (4 + 8 + 16 + 32 + 64)) / 1024);
    expect(round?.full.readMib).toBeGreaterThanOrEqual(figures.filledMib);
    expect(round?.full.storedMib).toBeGreaterThan(0);
    expect(round?.full.objects).toBeGreaterThanOrEqual(3);
    expect(round?.incremental.readMib).toBe(figures.changedChunks / 16);
    expect(round?.incremental.storedMib).toBeLessThanOrEqual(figures.changedChunks / 16 + 0.25);
    expect(round?.restore.seconds).toBeGreaterThan(0);
    expect(round?.restore.storedMib).toBe(0);
  });

  it('backs a volume up that is much larger than what is in it', { timeout: TIMEOUT_MS }, async () => {
    await using folder = await tempFolder();
    const own = join(folder.path, 'sparse');
    await mkdir(own);
    const figures = await benchSparse(own, { sizeGib: 1024, mappedMib: 8, changedMib: 1 });
    expect(figures.map(({ readMib }) => readMib)).toEqual([8, 1, 1]);
    for (const { beforeMib, peakMib, name } of figures) expect(peakMib, name).toBeGreaterThanOrEqual(beforeMib);
  });
});
