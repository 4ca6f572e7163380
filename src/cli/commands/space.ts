/** What one volume or snapshot takes of the pool, in words: shared by `volume show` and `snapshot show`. */
import { type Json, maybeNumber, number } from '../decode.ts';
import { formatBytes } from '../sizes.ts';

export function spaceFields(usage: Json): { readonly mapped: string; readonly exclusive: string } {
  const [shared, exclusive] = [maybeNumber(usage, 'shared_bytes'), maybeNumber(usage, 'exclusive_bytes')];
  const mapped = formatBytes(number(usage, 'mapped_bytes'));
  return {
    mapped: shared === null ? mapped : `${mapped}, ${formatBytes(shared)} of it shared`,
    exclusive:
      exclusive === null ? 'not known: a page cannot be read' : `${formatBytes(exclusive)}, which deleting it frees`,
  };
}
