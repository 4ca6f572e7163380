/** Temporary folders of tests: unique, so that two runs at once never meet, and removed by `await using`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type TempFolder = AsyncDisposable & { readonly path: string; remove(): Promise<void> };

/** The path is short, since a unix socket's may not exceed 107 bytes. */
export async function tempFolder(): Promise<TempFolder> {
  const path = await mkdtemp(join(tmpdir(), 'quarry-'));
  const remove = () => rm(path, { recursive: true, force: true, maxRetries: 3 });
  return { path, remove, [Symbol.asyncDispose]: remove };
}
