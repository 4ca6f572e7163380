/** NBD under TLS with clients that are not ours: who gets in, that bytes are the same, and that certificates can be renewed. */
import { randomBytes } from 'node:crypto';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run, tryRun } from '../support/peers.ts';
import { quarry, quarryOn } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';
import { option, RawClient } from './raw.ts';

const MIB = 2 ** 20;
const WAIT = { timeout: 20_000 };
const ERR_TLS_REQUIRED = 0x80000005;

describeWith(['openssl', 'nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io'], 'where TLS is required', () => {
  let daemon: Daemon;
  let folder: TempFolder;
  let certificates: Certificates;
  /** As the daemon gives it: of its TCP address. */
  let uri: string;

  beforeAll(async () => {
    folder = await tempFolder();
    certificates = await makeCertificates(join(folder.path, 'first'));
    const { certificate, key, authority } = certificates;
    const files = ['--nbd-tls-cert', certificate, '--nbd-tls-key', key, '--nbd-tls-client-ca', authority];
    daemon = await startDaemon({ args: ['--nbd', '127.0.0.1:0', '--nbd-tls', 'require', ...files] });
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    uri = (await quarryOn(daemon, 'volume', 'uri', 'disk')).split('\n').find((line) => line.endsWith('/disk')) ?? '';
  });
  afterAll(async () => {
    await daemon.stop();
    await folder.remove();
  });

  const shown = (path: string): string => `${uri}?tls-certificates=${path}`;
  const qemuOptions = (path: string): string[] => {
    const { hostname, port } = new URL(uri.replace('nbds:', 'http:'));
    const tls = ['--object', `tls-creds-x509,id=tls,dir=${path},endpoint=client`];
    return [...tls, '--image-opts', `driver=nbd,host=${hostname},port=${port},export=disk,tls-creds=tls`];
  };

  it('libnbd and qemu with a certificate are served, and write and read the same bytes', async () => {
    expect(uri).toMatch(/^nbds:\/\/127\.0\.0\.1:\d+\/disk$/);
    expect(await run('nbdinfo', [shown(certificates.client)])).toContain('with TLS');
    const image = join(folder.path, 'image');
    await writeFile(image, randomBytes(40 * MIB + 4096));
    await run('truncate', ['-s', '1G', image]);
    await run('nbdcopy', ['--connections=4', '--requests=32', '--flush', image, shown(certificates.client)]);
    const back = join(folder.path, 'back');
    await run('qemu-img', ['convert', '-O', 'raw', ...qemuOptions(certificates.client), back]);
    expect(await run('cmp', ['-n', String(48 * MIB), image, back])).toBe('');
    const commands = ['write -P 7 12345 6789', 'flush', 'read -P 7 12345 6789'].flatMap((command) => ['-c', command]);
    expect(await run('qemu-io', [...commands, ...qemuOptions(certificates.client)])).not.toMatch(/failed|error/i);
  });

  it('whoever has no certificate of the authority stays out, and so does plain text', async () => {
    expect((await tryRun('nbdinfo', [shown(certificates.anonymous)])).code).not.toBe(0);
    const stranger = await makeCertificates(join(folder.path, 'stranger'));
    await copyFile(certificates.authority, join(stranger.client, 'ca-cert.pem'));
    expect((await tryRun('nbdinfo', [shown(stranger.client)])).code).not.toBe(0);
    for (const plain of [uri.replace('nbds:', 'nbd:'), daemon.uri('disk')])
      expect((await tryRun('nbdinfo', [plain])).code).not.toBe(0);
    using client = await RawClient.greeted(daemon.nbdSocket);
    client.send(option(3, Buffer.alloc(0)));
    expect((await client.take(20)).readUInt32BE(12)).toBe(ERR_TLS_REQUIRED);
  });

  it('SIGHUP brings a new certificate for new connections; one that is broken changes nothing', async () => {
    const renewed = await makeCertificates(join(folder.path, 'second'));
    const failing = () => tryRun('nbdinfo', [shown(certificates.client)]).then(({ code }) => expect(code).not.toBe(0));
    await writeFile(certificates.key, 'no key');
    process.kill(daemon.pid, 'SIGHUP');
    await vi.waitFor(() => expect(daemon.log).toMatch(/server\.key cannot be read as PEM/), WAIT);
    expect(await run('nbdinfo', [shown(certificates.client)])).toContain('with TLS');
    for (const name of ['certificate', 'key', 'authority'] as const) await copyFile(renewed[name], certificates[name]);
    process.kill(daemon.pid, 'SIGHUP');
    await vi.waitFor(failing, WAIT);
    expect(await run('nbdinfo', [shown(renewed.client)])).toContain('with TLS');
  });

  it('a daemon does not start with files that are no certificates, and says which', async () => {
    const wrong = join(folder.path, 'wrong');
    await writeFile(wrong, 'nothing');
    const args = ['serve', '--data', join(folder.path, 'data'), '--api', `unix:${join(folder.path, 'a')}`];
    const ended = await quarry([...args, '--nbd-tls', 'allow', '--nbd-tls-cert', wrong, '--nbd-tls-key', wrong]);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(wrong);
  });
});
