/**
 * Images into volumes and volumes into images: the steps around the copy. A volume that could not be filled is deleted;
 * one whose import was killed is marked, so that nobody takes half a disk for a whole one.
 */
import { resolve } from 'node:path';
import { Failure } from '../../base/errors.ts';
import { exportImage, importImage } from '../../image/copy.ts';
import { openImage } from '../../image/image.ts';
import type { Context } from '../context.ts';
import { type Json, maybeText, member, text } from '../decode.ts';
import { exitCodeOf, OperationFailed } from '../failure.ts';
import { pathOf, waitFor } from '../objects.ts';
import { startProgress } from '../progress.ts';
import { formatBytes, GIB } from '../sizes.ts';
import { createVolume, deleteVolume, uriOf } from './volume.ts';

/** Metadata of a volume that is being filled. */
const MARK = 'quarry_import';

/** Cleaning up must work after Ctrl-C, which has aborted the command's own signal. */
function unhurried(context: Context): Context {
  return { ...context, shouldWait: true, signal: new AbortController().signal };
}

function refuseNoWait(context: Context, what: string): void {
  if (context.shouldWait) return;
  throw new Failure('bad_request', {
    reason: `--no-wait cannot be had with ${what}: this command does the copying itself.`,
  });
}

/** With a folder of certificates for a server that wants TLS; named by a flag, or by QUARRY_NBD_CERTIFICATES. */
function securedUri(uri: string, certificates: string | undefined): string {
  const folder = certificates || process.env['QUARRY_NBD_CERTIFICATES'];
  if (!uri.startsWith('nbds') || !folder) return uri;
  return `${uri}${uri.includes('?') ? '&' : '?'}tls-certificates=${encodeURIComponent(resolve(folder))}`;
}

export async function createFromImage(
  context: Context,
  options: { body: Json; path: string; certificates: string | undefined },
): Promise<string> {
  refuseNoWait(context, '--image');
  await using image = await openImage(options.path);
  const needed = Math.ceil(image.sizeBytes / GIB);
  const size = options.body['size'] ?? needed;
  if (typeof size !== 'number' || size < needed) {
    const reason = `The image has ${image.sizeBytes} bytes: --size must be ${needed}GiB at least.`;
    throw new Failure('bad_request', { reason });
  }
  const given = options.body['metadata'];
  const metadata = { ...(typeof given === 'object' ? given : {}), [MARK]: 'incomplete' };
  const id = await createVolume(context, { ...options.body, size, metadata });
  const progress = await startProgress(`Importing ${options.path}`);
  try {
    const uri = securedUri(await uriOf(context, 'volume', id), options.certificates);
    const { signal } = context;
    const copied = await importImage({ image, uri, signal, onProgress: (done, total) => progress.update(done, total) });
    await context.client.request('DELETE', `${pathOf('volume', id)}/metadata/${MARK}`);
    progress.stop();
    context.printer.note(`Imported ${image.format} image ${options.path}: ${formatBytes(copied.dataBytes)} of data.`);
    return id;
  } catch (error) {
    progress.stop();
    throw await afterDeletion(context, id, error);
  }
}

/** The error of a failed import, with what became of the volume. */
async function afterDeletion(context: Context, id: string, error: unknown): Promise<OperationFailed> {
  let fate = `Volume ${id} was deleted.`;
  try {
    await deleteVolume(unhurried(context), id, { cascade: false });
  } catch (second) {
    const reason = second instanceof Error ? second.message : String(second);
    fate = `Volume ${id} holds a part of it and could not be deleted (${reason}); delete it with \`quarry volume delete ${id}\`.`;
  }
  const cause = error instanceof Error ? error.message : String(error);
  return new OperationFailed(`The import failed: ${cause} ${fate}`, exitCodeOf(error));
}

/** Of a snapshot taken for it: a disk that is written to meanwhile must not come out as a mixture of moments. */
export async function exportToFile(
  context: Context,
  options: { volume: Json; path: string; overwrite: boolean; certificates: string | undefined },
): Promise<void> {
  refuseNoWait(context, 'export');
  const { client, signal } = context;
  const volumeId = text(options.volume, 'id');
  const name = `quarry-export-of-${maybeText(options.volume, 'name') ?? volumeId}`.slice(0, 255);
  const request = { snapshot: { volume_id: volumeId, name, description: 'Held by `quarry volume export`' } };
  const snapshotId = text(member(await client.request('POST', '/snapshots', request), 'snapshot'), 'id');
  const progress = await startProgress(`Exporting to ${options.path}`);
  try {
    await waitFor({
      client,
      kind: 'snapshot',
      id: snapshotId,
      what: 'The snapshot to export',
      until: 'settled',
      signal,
    });
    const uri = securedUri(await uriOf(context, 'snapshot', snapshotId), options.certificates);
    const { path, overwrite } = options;
    const copied = await exportImage({
      uri,
      path,
      overwrite,
      signal,
      onProgress: (done, total) => progress.update(done, total),
    });
    progress.stop();
    context.printer.note(
      `Exported ${path}: ${formatBytes(copied.sizeBytes)}, ${formatBytes(copied.dataBytes)} of them data.`,
    );
  } finally {
    progress.stop();
    await client.request('DELETE', pathOf('snapshot', snapshotId));
    const calm = unhurried(context).signal;
    await waitFor({
      client,
      kind: 'snapshot',
      id: snapshotId,
      what: 'Deleting the snapshot',
      until: 'gone',
      signal: calm,
    });
  }
}
