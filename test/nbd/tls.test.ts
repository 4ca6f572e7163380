/** NBD under TLS with clients that are not ours: who gets in, that bytes are the same, and that certificates can be renewed. */
import { randomBytes } from 'node:crypto';
import { copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run, tryRun } from '../support/peers.ts';
import { quarry, quarryOn } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';
import { COMMAND, exportData, OPTION, option, RawClient, request } from './raw.ts';

const MIB = 2 ** 20;
const WAIT = { timeout: 20_000 };
async function residentBytes(pid: number): Promise<number> {
  return Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

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

  it('images go in and out under TLS, with a certificate of the authority and not without', async () => {
    const image = join(folder.path, 'image.raw');
    await writeFile(image, randomBytes(3 * MIB));
    await run('truncate', ['-s', '1G', image]);
    const create = (name: string, ...args: string[]) =>
      quarry(['volume', 'create', name, '--image', image, ...args], { env: { QUARRY_URL: daemon.url } });
    const refused = await create('refused');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/certificate.* was deleted/s);
    const stranger = await create('refused', '--nbd-certificates', certificates.anonymous);
    expect(stranger.stderr).toMatch(/The import failed: .* was deleted/s);
    const wrong = await create('refused', '--nbd-certificates', folder.path);
    expect(wrong.stderr).toContain(`There is no ${join(folder.path, 'ca-cert.pem')}`);
    expect(await quarryOn(daemon, 'volume', 'list')).not.toContain('refused');
    await quarryOn(daemon, 'volume', 'create', 'imported', '--image', image, '--nbd-certificates', certificates.client);
    const back = join(folder.path, 'exported.raw');
    await quarryOn(daemon, 'volume', 'export', 'imported', back, '--nbd-certificates', certificates.client);
    expect(await run('cmp', [image, back])).toBe('');
  });

  it('our own client reads over TCP what it wrote, and leaves a server of another name', async () => {
    const whole = shown(certificates.client);
    const bytes = randomBytes(5 * MIB + 1024);
    await using client = await NbdClient.connect(whole);
    await client.write(8 * MIB, bytes);
    const read = Buffer.alloc(bytes.length);
    await client.read(8 * MIB, read);
    expect(read.equals(bytes)).toBe(true);
    await expect(NbdClient.connect(`${whole}&tls-hostname=example.org`)).rejects.toThrow(/altnames/i);
    await expect(NbdClient.connect(shown(certificates.anonymous))).rejects.toThrow(/nbds:/);
  });

  it('backups are made and restored by the daemon itself, which needs no certificate for that', async () => {
    const put = (pattern: number) =>
      run('qemu-io', ['-c', `write -P ${pattern} 1M 1M`, '-c', 'flush', ...qemuOptions(certificates.client)]);
    const holds = async (pattern: number) =>
      expect(await run('qemu-io', ['-c', `read -P ${pattern} 1M 1M`, ...qemuOptions(certificates.client)])).not.toMatch(
        /failed|error/i,
      );
    await put(0x11);
    await quarryOn(daemon, 'backup', 'create', 'disk', 'saved');
    await put(0x22);
    await holds(0x22);
    await quarryOn(daemon, 'backup', 'restore', 'saved', '--into', 'disk');
    await holds(0x11);
    expect((await stat(join(daemon.dataDir, 'internal.sock'))).mode & 0o777).toBe(0o600);
  });

  it('a client that asks for much and reads nothing takes no more memory than without TLS', async () => {
    const pem = (name: string) => readFile(join(certificates.client, name));
    const [ca, cert, key] = await Promise.all(['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map(pem));
    using client = await RawClient.secured(daemon.nbdSocket, { ca, cert, key, host: 'localhost' });
    await client.ask(OPTION.go, exportData('disk'));
    await client.write(0, Buffer.alloc(32 * MIB, 7));
    const before = await residentBytes(daemon.pid);
    client.stopReading();
    const read = request({ command: COMMAND.read, length: 32 * MIB });
    client.send(Buffer.concat(Array.from({ length: 200 }, () => read)));
    await using other = await NbdClient.connect(shown(certificates.client));
    for (let count = 0; count < 20; count += 1) await other.write(count * 4096, Buffer.alloc(4096, count));
    // Of 6.4 GB asked for, what one request and one batch may take is held.
    expect((await residentBytes(daemon.pid)) - before).toBeLessThan(256 * MIB);
    await client.vanish();
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
