/**
 * A cloud as small as it gets: a Keystone, and a daemon that asks it and stands in its catalog. What either of them does
 * is not known here.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Daemon, startDaemon } from './daemon.ts';
import { type Keystone, startKeystone } from './keystone.ts';
import type { PythonEnvironment } from './python.ts';
import { type TempFolder, tempFolder } from './temp.ts';

export type Cloud = { readonly keystone: Keystone; readonly daemon: Daemon; stop(): Promise<void> };

/** Takes as long as `KEYSTONE_START_MS` at most. */
export async function startCloud(python: PythonEnvironment): Promise<Cloud> {
  const folder = await tempFolder();
  const keystone = await startKeystone(python).catch(async (error: unknown) => {
    await folder.remove();
    throw error;
  });
  try {
    const daemon = await startBehind(keystone, folder);
    const stop = async () => {
      await daemon.stop();
      await keystone.stop();
      await folder.remove();
    };
    return { keystone, daemon, stop };
  } catch (error) {
    await keystone.stop();
    await folder.remove();
    throw error;
  }
}

async function startBehind(keystone: Keystone, folder: TempFolder): Promise<Daemon> {
  const config = join(folder.path, 'quarry.toml');
  const own = `auth_url = "${keystone.url}"\nusername = "quarry"\npassword = "quarry"\nproject_name = "service"\n`;
  await writeFile(config, `auth = "keystone"\n[keystone]\n${own}`, { mode: 0o600 });
  const daemon = await startDaemon({ api: 'tcp', args: ['--config', config] });
  try {
    await keystone.publish(`${daemon.url}/v3`);
    return daemon;
  } catch (error) {
    await daemon.stop();
    throw error;
  }
}
