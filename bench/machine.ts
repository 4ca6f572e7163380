/** What the benchmarks share: the machine that figures belong to, where they are kept, and the middle of several. */
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { InvalidArgumentError } from 'commander';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Of an option. */
export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('must be a whole number from 1 up');
  return value;
}

/** Figures without their machine are worth nothing. */
function machine(): Record<string, string | number> {
  const commit = () => {
    try {
      return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
        cwd: import.meta.dirname,
        encoding: 'utf8',
        stdio: 'pipe',
      }).trim();
    } catch {
      return 'none';
    }
  };
  const [first] = cpus();
  return {
    cpu: first?.model ?? 'unknown',
    cpus: cpus().length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    node: process.versions.node,
    commit: commit(),
    at: new Date().toISOString(),
  };
}

/** Into the file, or one of its own under bench/results. */
export async function keepResults(file: string | undefined, results: object): Promise<void> {
  const about = machine();
  const folder = join(import.meta.dirname, 'results');
  const path = file ?? join(folder, `${String(about['at']).replace(/[:.]/g, '-')}.json`);
  if (file === undefined) await mkdir(folder, { recursive: true });
  await writeFile(path, `${JSON.stringify({ machine: about, ...results }, null, 1)}\n`);
  process.stderr.write(`written to ${path}\n`);
}
