/**
 * The certificate that clients of the API are shown: read from its files, and refused with the file's name when it is not what it
 * should be. It knows no sockets.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Failure } from '../base/errors.ts';

/** Paths of PEM files. */
export type ApiTlsFiles = { readonly certificate: string; readonly key: string };
/** What is in them. */
export type ApiTls = { readonly cert: Buffer; readonly key: Buffer };

export function readApiTls({ certificate, key }: ApiTlsFiles): ApiTls {
  const tls = { cert: contentOf(certificate), key: contentOf(key) };
  const shown = decoded(certificate, 'certificate', () => new X509Certificate(tls.cert));
  const own: KeyObject = decoded(key, 'private key', () => createPrivateKey(tls.key));
  if (!shown.checkPrivateKey(own))
    throw refuse(`The private key in ${key} is not the one of the certificate in ${certificate}.`);
  return tls;
}

function contentOf(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw refuse(`The file ${path} cannot be read: ${(error as Error).message}`);
  }
}

function decoded<Result>(path: string, noun: string, decode: () => Result): Result {
  try {
    return decode();
  } catch (error) {
    throw refuse(`${path} holds no ${noun} that can be used, in PEM without a passphrase: ${(error as Error).message}`);
  }
}

function refuse(reason: string): Failure {
  return new Failure('bad_request', { reason });
}
