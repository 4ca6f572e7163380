/**
 * One vitest project per folder of test/ that has tests, so that `--project nbd` runs that room alone. Files are
 * independent of each other and of their order; what a test starts, it stops.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

const ROOM = join(import.meta.dirname, 'test');

function hasTests(folder: string): boolean {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).some((name) => name.endsWith('.test.ts'));
}

const rooms = existsSync(ROOM)
  ? readdirSync(ROOM, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && hasTests(join(ROOM, entry.name)))
      .map((entry) => entry.name)
  : [];

export default defineConfig({
  test: {
    pool: 'forks',
    // Tests wait for events, so a limit only ends what would hang; two cores under load are slow at times.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    passWithNoTests: true,
    projects: rooms.map((name) => ({ extends: true, test: { name, include: [`test/${name}/**/*.test.ts`] } })),
  },
});
