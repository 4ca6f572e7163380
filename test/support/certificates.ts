/** X.509 for tests of TLS, by openssl: an authority, a server's certificate and a folder as libnbd and qemu want a client's. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './peers.ts';

export type Certificates = {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
  /** ca-cert.pem, client-cert.pem, client-key.pem. */
  readonly client: string;
  /** Only ca-cert.pem: trusts the server and has nothing to show. */
  readonly anonymous: string;
};

const NAMES = 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n';
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** All below `folder`, which the caller removes. */
export async function makeCertificates(folder: string): Promise<Certificates> {
  const [client, anonymous] = [join(folder, 'client'), join(folder, 'anonymous')];
  for (const path of [folder, client, anonymous]) await mkdir(path, { recursive: true });
  const [authority, authorityKey] = [join(folder, 'ca-cert.pem'), join(folder, 'ca-key.pem')];
  const isAuthority = ['-addext', 'basicConstraints=critical,CA:true', '-addext', 'keyUsage=keyCertSign'];
  const subject = ['-subj', '/CN=an authority', '-days', '2'];
  await run('openssl', ['req', '-x509', ...EC, ...subject, ...isAuthority, '-keyout', authorityKey, '-out', authority]);
  const sign = async (certificate: string, key: string): Promise<void> => {
    const [asked, names] = [`${certificate}.csr`, join(folder, 'names')];
    await writeFile(names, NAMES);
    await run('openssl', ['req', ...EC, '-subj', '/CN=localhost', '-keyout', key, '-out', asked]);
    const by = ['-CA', authority, '-CAkey', authorityKey, '-CAcreateserial', '-days', '2', '-extfile', names];
    await run('openssl', ['x509', '-req', '-in', asked, ...by, '-out', certificate]);
  };
  const made = {
    authority,
    certificate: join(folder, 'server.pem'),
    key: join(folder, 'server.key'),
    client,
    anonymous,
  };
  await sign(made.certificate, made.key);
  await sign(join(client, 'client-cert.pem'), join(client, 'client-key.pem'));
  for (const path of [client, anonymous]) await run('cp', [authority, join(path, 'ca-cert.pem')]);
  return made;
}
