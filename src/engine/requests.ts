/** What is asked of the engine and cannot be: sizes and groups, checked before anything changes. */
import { Failure } from '../base/errors.ts';
import { BLOCK_BYTES } from '../native/plane.ts';

export const VOLUME_BYTES_MAX = 64 * 2 ** 40;
/** Their records are one frame of the journal, and all their volumes pause together. */
const SNAPSHOTS_AT_ONCE_MAX = 256;

export function requireGroup(wanted: readonly { id: string }[]): void {
  if (wanted.length > SNAPSHOTS_AT_ONCE_MAX) {
    const reason = `${wanted.length} snapshots at one instant are asked for; ${SNAPSHOTS_AT_ONCE_MAX} are possible.`;
    throw new Failure('bad_request', { reason });
  }
  const ids = new Set<string>();
  for (const { id } of wanted) {
    if (ids.has(id)) throw new Failure('bad_request', { reason: `Snapshot ${id} is asked for twice.` });
    ids.add(id);
  }
}

export function requireFits(sizeBytes: number, source: { readonly sizeBytes: number }): void {
  if (sizeBytes >= source.sizeBytes) return;
  throw new Failure('bad_request', {
    reason: `A volume of ${sizeBytes} bytes cannot hold its source of ${source.sizeBytes} bytes.`,
  });
}

export function requireSize(sizeBytes: number): void {
  if (
    !Number.isSafeInteger(sizeBytes) ||
    sizeBytes <= 0 ||
    sizeBytes > VOLUME_BYTES_MAX ||
    sizeBytes % BLOCK_BYTES !== 0
  ) {
    throw new Failure('bad_request', {
      reason: `A size of ${sizeBytes} bytes is not a multiple of ${BLOCK_BYTES} between ${BLOCK_BYTES} and ${VOLUME_BYTES_MAX}.`,
    });
  }
}
