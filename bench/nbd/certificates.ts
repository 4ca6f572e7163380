/** X.509 for the jobs under TLS, by openssl: an authority and a server's certificate, under the names that nbdkit, qemu and libnbd look for. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const ELLIPTIC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const;

/** The same kind of key for every server: what is compared is not the handshake, but nobody shall have a better one. */
export function makeCertificates(folder: string): void {
  mkdirSync(folder);
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'ignore' });
  const authority = ['-keyout', at('ca-key.pem'), '-out', at('ca-cert.pem')];
  const isAuthority = [
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'keyUsage=critical,keyCertSign,cRLSign',
  ];
  openssl('req', '-x509', ...ELLIPTIC, '-subj', '/CN=bench', '-days', '1', ...isAuthority, ...authority);
  const asked = at('asked.pem');
  openssl('req', ...ELLIPTIC, '-subj', '/CN=localhost', '-keyout', at('server-key.pem'), '-out', asked);
  writeFileSync(
    at('extensions'),
    'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n',
  );
  const signed = ['-CA', at('ca-cert.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial', '-days', '1'];
  openssl('x509', '-req', '-in', asked, ...signed, '-extfile', at('extensions'), '-out', at('server-cert.pem'));
}
