/** What a disk does by itself: a bit of a file changes, and nobody has written. */
import { open } from 'node:fs/promises';

export async function flipBit(path: string, offset: number): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  await file.write(Buffer.from([byte.readUInt8(0) ^ 0x10]), 0, 1, offset);
  await file.sync();
}
