/**
 * Client programs in Go: built from a folder of this repository with its pinned modules, once per state of its sources,
 * into .cache. Where Go is not installed that is a skip which names it, and in CI a failure.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { describe } from 'vitest';
import { hasPeer, run, tryRun } from './peers.ts';

const CACHE = join(import.meta.dirname, '..', '..', '.cache', 'go');
/** A first build fetches and compiles the modules as well. */
const BUILD_MS = 300_000;

/** Path of the program. Two runs may build it at once: each moves a whole one into place. */
async function built(folder: string): Promise<string> {
  const hash = createHash('sha256').update(await run('go', ['env', 'GOVERSION', 'GOOS', 'GOARCH']));
  for (const name of (await readdir(folder)).sort())
    hash.update(`${name}\0`).update(await readFile(join(folder, name)));
  const program = join(CACHE, `${basename(folder)}-${hash.digest('hex').slice(0, 12)}`);
  if (existsSync(program)) return program;
  await mkdir(CACHE, { recursive: true });
  const making = `${program}.${process.pid}`;
  await run('go', ['build', '-buildvcs=false', '-o', making, '.'], { cwd: folder, timeoutMs: BUILD_MS });
  await rename(making, program);
  return program;
}

/** Awaited at the top of a file, since a first build takes longer than a hook may. */
export async function describeWithGo(
  folder: string,
  name: string,
  body: (program: string) => void | Promise<void>,
): Promise<void> {
  if (hasPeer('go') && (await tryRun('go', ['version'])).code === 0) {
    const program = await built(folder);
    describe(name, () => body(program));
    return;
  }
  if (process.env['CI'] === 'true') throw new Error('missing: go');
  describe.skip(`${name} (missing: go)`, () => {});
}
