/** The openstack command line against a daemon that serves its API over HTTPS, with a certificate of an authority of its own. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makeCertificates } from '../support/certificates.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { OpenstackCli, Osc } from '../support/openstack-cli.ts';
import { describeWithPython } from '../support/python.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

await describeWithPython('openstack', 'the openstack command line over HTTPS', (python) => {
  let folder: TempFolder;
  let daemon: Daemon;
  let cli: OpenstackCli;
  let authority: string;

  beforeAll(async () => {
    folder = await tempFolder();
    const made = await makeCertificates(folder.path);
    authority = made.authority;
    const args = ['--api-tls-cert', made.certificate, '--api-tls-key', made.key];
    daemon = await startDaemon({ api: 'tcp', authority: await readFile(authority, 'utf8'), args });
    cli = new OpenstackCli(python);
  });

  afterAll(async () => {
    await cli?.[Symbol.asyncDispose]();
    await daemon?.stop();
    await folder?.remove();
  });

  const osc = (...more: string[]): Osc =>
    new Osc(cli, ['--os-auth-type', 'none', '--os-endpoint', `${daemon.url}/v3`, ...more]);

  it('works with volumes when it trusts the authority', async () => {
    const trusting = osc('--os-cacert', authority);
    const { id } = await trusting.show('volume create --size 1 secure');
    expect(await trusting.settled('volume show', String(id))).toMatchObject({ name: 'secure', status: 'available' });
    await trusting.ok('volume snapshot create --volume secure kept');
    expect(await trusting.settled('volume snapshot show kept')).toMatchObject({ status: 'available' });
    await trusting.ok('volume delete --purge secure');
    await trusting.gone('volume show', String(id));
  });

  it('refuses to speak with us when it does not', async () => {
    expect(await osc().refused('volume list')).toMatch(/version discovery document|certificate verify failed/);
  });
});
