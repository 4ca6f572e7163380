/** The version in package.json: the same two folders up from src/cli and from dist/cli. */
import { readFileSync } from 'node:fs';

export function readVersion(): string {
  const manifest: { version?: unknown } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  return typeof manifest.version === 'string' ? manifest.version : 'unknown';
}
