/** Every row of the catalog, oldest first: what no part of the program needs at once. */
import type { Reader, SnapshotRow, VolumeRow } from '../../src/catalog/schema.ts';

export async function allVolumes(reader: Reader): Promise<VolumeRow[]> {
  return reader.selectFrom('volumes').selectAll().orderBy('created_at').execute();
}

export async function allSnapshots(reader: Reader): Promise<SnapshotRow[]> {
  return reader.selectFrom('snapshots').selectAll().orderBy('created_at').execute();
}
