/**
 * Keys of backups. Each attempt at a backup encrypts under a data key of its own; that key, and the key of the chunks'
 * hashes, which a line of backups shares, lie beside the packs, wrapped by the operator's key. It knows neither chunks
 * nor where the operator's key comes from.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { blake3 } from '@napi-rs/blake-hash';
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import { Failure } from '../base/errors.ts';
import { decodeSealed, encodeSealed } from '../format/backup-manifest.ts';
import type { ObjectStore } from '../objects/objects.ts';
import type { ChunkKeys } from './chunk-pool.ts';
import { dataKeyKey } from './keys.ts';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;

/** The operator's key, and the name by which its wrapped keys are found. */
export type WrappingKey = {
  readonly id: string;
  readonly key: Buffer;
  /** Those it has replaced, which open what it has not wrapped yet; they wrap nothing any more. */
  readonly previous?: readonly WrappingKey[];
};

export function wrappingKeyFrom(key: Buffer): WrappingKey {
  if (key.length !== KEY_BYTES)
    throw new Failure('bad_request', { reason: `A backup key has ${KEY_BYTES} bytes, not ${key.length}.` });
  const id = blake3(Buffer.concat([Buffer.from('quarry backup key '), key])).toString('hex', 0, 8);
  return { id, key };
}

const WrappedSchema = Type.Object({
  format: Type.Literal(1),
  kind: Type.Literal('key'),
  key: Type.String(),
  wrapped_by: Type.String(),
  nonce: Type.String(),
  /** Hexadecimal: data key and hash key, encrypted, and the tag. */
  wrapped: Type.String(),
});

export type DataKey = ChunkKeys & { readonly id: string };

/** A fresh data key; `hashKey` is that of the line of backups, if there is one. */
export function newDataKey(hashKey: Uint8Array | null): DataKey {
  return {
    id: randomBytes(16).toString('hex'),
    dataKey: randomBytes(KEY_BYTES),
    hashKey: hashKey ?? randomBytes(KEY_BYTES),
  };
}

export async function storeDataKey(
  objects: ObjectStore,
  wrapping: WrappingKey,
  { volume, key }: { volume: string; key: DataKey },
): Promise<void> {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', wrapping.key, nonce);
  cipher.setAAD(Buffer.from(`${volume} ${key.id}`));
  const wrapped = Buffer.concat([
    cipher.update(key.dataKey),
    cipher.update(key.hashKey),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  const body = encodeSealed({
    format: 1,
    kind: 'key',
    key: key.id,
    wrapped_by: wrapping.id,
    nonce: nonce.toString('hex'),
    wrapped: wrapped.toString('hex'),
  });
  await objects.put(dataKeyKey(volume, key.id, wrapping.id), body, { ifAbsent: false });
}

export async function loadDataKey(
  objects: ObjectStore,
  wrapping: WrappingKey | null,
  { volume, keyId }: { volume: string; keyId: string },
): Promise<DataKey> {
  if (wrapping === null)
    throw new Failure('wrong_state', { reason: 'Invalid backup: It is encrypted and no backup key is configured.' });
  const found = await unwrapped(objects, wrapping, { volume, keyId });
  if (found instanceof Buffer) return dataKeyOf(keyId, found);
  for (const previous of wrapping.previous ?? []) {
    const older = await unwrapped(objects, previous, { volume, keyId });
    if (older instanceof Buffer) return dataKeyOf(keyId, older);
  }
  if (found instanceof Failure) throw found;
  const reason = `Invalid backup: Its data key ${keyId} is not wrapped by the configured backup key ${wrapping.id}.`;
  throw new Failure('wrong_state', { reason });
}

function dataKeyOf(id: string, plain: Buffer): DataKey {
  return {
    id,
    dataKey: Buffer.from(plain.subarray(0, KEY_BYTES)),
    hashKey: Buffer.from(plain.subarray(KEY_BYTES)),
  };
}

/** Both keys; null where there is no such object, a failure where it is damaged. */
async function unwrapped(
  objects: ObjectStore,
  wrapping: WrappingKey,
  { volume, keyId }: { volume: string; keyId: string },
): Promise<Buffer | Failure | null> {
  const key = dataKeyKey(volume, keyId, wrapping.id);
  const body = await objects.get(key, null);
  if (body === null) return null;
  try {
    const value = decodeSealed(key, body);
    if (!Check(WrappedSchema, value)) return new Failure('corrupt', { path: key, reason: 'it is no wrapped key' });
    const wrapped = Buffer.from(value.wrapped, 'hex');
    const decipher = createDecipheriv('aes-256-gcm', wrapping.key, Buffer.from(value.nonce, 'hex'));
    decipher.setAAD(Buffer.from(`${volume} ${keyId}`));
    decipher.setAuthTag(wrapped.subarray(2 * KEY_BYTES));
    return Buffer.concat([decipher.update(wrapped.subarray(0, 2 * KEY_BYTES)), decipher.final()]);
  } catch (error) {
    if (error instanceof Failure) return error;
    return new Failure('corrupt', { path: key, reason: `the backup key ${wrapping.id} does not unwrap it` });
  }
}
