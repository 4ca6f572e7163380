/** The API over HTTPS, by the built daemon and command line: who is served, that certificates are renewed, and that it ends. */
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith } from '../support/peers.ts';
import { quarry } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

const WAIT = { timeout: 20_000 };

describeWith(['openssl'], 'the API with a certificate', () => {
  let folder: TempFolder;
  let certificates: Certificates;
  let daemon: Daemon;

  beforeAll(async () => {
    folder = await tempFolder();
    certificates = await makeCertificates(join(folder.path, 'first'));
    daemon = await start(certificates);
  });
  afterAll(async () => {
    await daemon?.stop();
    await folder.remove();
  });

  /** Serves on a port of TCP and, besides, on a unix socket. */
  const start = async ({ certificate, key, authority }: Certificates, socket = 'plain.sock'): Promise<Daemon> => {
    const plain = `unix:${join(folder.path, socket)}`;
    const args = ['--api-tls-cert', certificate, '--api-tls-key', key, '--api', plain];
    return startDaemon({ api: 'tcp', authority: await readFile(authority, 'utf8'), args });
  };
  const list = (...flags: string[]) => quarry(['--url', daemon.url, ...flags, 'volume', 'list']);

  it('serves who trusts its authority, and says https in its links', async () => {
    expect(daemon.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const { body } = await daemon.request('GET', '/');
    expect(body).toMatchObject({ versions: [{ links: [{}, { rel: 'self', href: `${daemon.url}/v3/` }] }] });
    expect(await list('--cacert', certificates.authority)).toMatchObject({ code: 0, stderr: '' });
    const env = { OS_CACERT: certificates.authority };
    expect((await quarry(['--url', daemon.url, 'volume', 'list'], { env })).code).toBe(0);
  });

  it('a proxy that ends the TLS of clients has the last word about links', async () => {
    const { body } = await daemon.request('GET', '/', undefined, { 'x-forwarded-proto': 'http' });
    expect(body).toMatchObject({ versions: [{ links: [{}, { href: expect.stringMatching(/^http:/) }] }] });
  });

  it('who does not trust it is told what to do, and plain HTTP gets no answer', async () => {
    const { code, stderr } = await list();
    expect(code).toBe(5);
    expect(stderr).toMatch(/certificate.*--cacert/);
    await expect(request(daemon.url.replace('https:', 'http:'))).rejects.toThrow();
  });

  it('its unix socket speaks HTTP as ever', async () => {
    const { code, stdout } = await quarry(['--url', `unix:${join(folder.path, 'plain.sock')}`, 'volume', 'list']);
    expect({ code, stdout }).toMatchObject({ code: 0 });
  });

  it('SIGHUP brings a new certificate for new connections; files that do not match change nothing', async () => {
    const renewed = await makeCertificates(join(folder.path, 'second'));
    await copyFile(renewed.key, certificates.key);
    process.kill(daemon.pid, 'SIGHUP');
    await vi.waitFor(() => expect(daemon.log).toMatch(/is not the one of the certificate in/), WAIT);
    expect((await list('--cacert', certificates.authority)).code).toBe(0);
    await copyFile(renewed.certificate, certificates.certificate);
    process.kill(daemon.pid, 'SIGHUP');
    const isRenewed = async () => expect((await list('--cacert', renewed.authority)).code).toBe(0);
    await vi.waitFor(isRenewed, WAIT);
    expect((await list('--cacert', certificates.authority)).code).toBe(5);
    // A connection from before goes on.
    expect((await daemon.request('GET', '/v3/volumes')).status).toBe(200);
  });

  it('stops in time, whatever a client leaves half said', async () => {
    await using other = await start(await makeCertificates(join(folder.path, 'other')), 'other.sock');
    const { hostname, port } = new URL(other.url);
    const silent = connect(Number(port), hostname);
    silent.on('error', () => {});
    await new Promise((resolve) => silent.once('connect', resolve));
    // Answered after the silent connection was taken: the daemon knows of both.
    expect((await other.request('GET', '/healthcheck')).status).toBe(200);
    expect(await other.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(other.log).not.toContain('stopping took too long');
    silent.destroy();
  });

  it('a daemon does not start with files that are of no use, and says which', async () => {
    const wrong = join(folder.path, 'wrong');
    await writeFile(wrong, 'nothing');
    const { key, certificate } = await makeCertificates(join(folder.path, 'third'));
    const cases = [
      { cert: wrong, key, says: `${wrong} holds no certificate` },
      { cert: certificate, key: wrong, says: `${wrong} holds no private key` },
      { cert: certificate, key: `${wrong}.missing`, says: `${wrong}.missing cannot be read` },
    ];
    for (const { cert, key, says } of cases) {
      const data = ['serve', '--data', join(folder.path, 'data'), '--api', `unix:${join(folder.path, 'a')}`];
      const ended = await quarry([...data, '--api-tls-cert', cert, '--api-tls-key', key]);
      expect(ended.code).toBe(2);
      expect(ended.stderr).toContain(says);
    }
  });
});
