/** A volume that grows under a client: what the client is told, and what it may do. */
import { expect, it } from 'vitest';
import { startDaemon } from '../support/daemon.ts';
import { quarryOn } from '../support/quarry.ts';
import { COMMAND, ERRNO, exportData, OPTION, RawClient } from './raw.ts';

const GIB = 2 ** 30;
const BLOCK = 4096;
/** Of an extension of the protocol that is not spoken here. */
const COMMAND_RESIZE = 8;

it('an open connection may use what was added without a new handshake; later ones are told the new size', async () => {
  await using daemon = await startDaemon();
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  using client = await RawClient.ready(daemon.nbdSocket, 'disk');
  const block = Buffer.alloc(BLOCK, 7);
  expect(await client.write(GIB - BLOCK, block)).toBe(0);
  expect(await client.write(GIB, block)).toBe(ERRNO.noSpace);
  await quarryOn(daemon, 'volume', 'extend', 'disk', '2');

  expect(await client.write(GIB, block)).toBe(0);
  expect((await client.read(GIB - BLOCK, 2 * BLOCK)).equals(Buffer.concat([block, block]))).toBe(true);
  expect(await client.errnoOf({ command: COMMAND_RESIZE, length: 0 })).toBe(ERRNO.invalid);
  expect(await client.errnoOf({ command: COMMAND.flush })).toBe(0);

  using later = await RawClient.greeted(daemon.nbdSocket);
  const said = await later.ask(OPTION.go, exportData('disk'));
  const information = said.find((text) => text.readUInt16BE(0) === 0);
  expect(information?.readBigUInt64BE(2)).toBe(BigInt(2 * GIB));
  // Bit 9 would offer the extension.
  expect((information?.readUInt16BE(10) ?? 0) & (1 << 9)).toBe(0);
});
