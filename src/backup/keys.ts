/**
 * The names of a repository's objects. Every key ends in a suffix and no key is a folder of another: some servers
 * refuse that. Nothing about contents leaks from names.
 */

const seq8 = (sequence: number): string => String(sequence).padStart(8, '0');

export const FORMAT_KEY = 'format.json';
export const VOLUMES = 'vol/';

export const volumePrefix = (volume: string): string => `vol/${volume}/`;
export const packPrefix = (volume: string, backup: string): string => `vol/${volume}/pack/${backup}/`;
export const packKey = (volume: string, backup: string, sequence: number): string =>
  `${packPrefix(volume, backup)}${seq8(sequence)}.pack`;
export const indexKey = (volume: string, backup: string, sequence: number): string =>
  `vol/${volume}/idx/${backup}/${seq8(sequence)}.idx`;
export const manifestPrefix = (volume: string): string => `vol/${volume}/manifest/`;
export const manifestKey = (volume: string, backup: string): string => `${manifestPrefix(volume)}${backup}.json`;
export const pinPrefix = (volume: string): string => `vol/${volume}/pin/`;
export const pinKey = (volume: string, parent: string, child: string): string =>
  `${pinPrefix(volume)}${parent}/${child}.json`;
export const keyPrefix = (volume: string): string => `vol/${volume}/key/`;
export const dataKeyKey = (volume: string, keyId: string, kekId: string): string =>
  `${keyPrefix(volume)}${keyId}.${kekId}.json`;

export type ParsedKey =
  | { readonly kind: 'pack' | 'idx'; readonly backup: string; readonly sequence: number }
  | { readonly kind: 'manifest'; readonly backup: string }
  | { readonly kind: 'pin'; readonly parent: string; readonly child: string }
  | { readonly kind: 'key'; readonly keyId: string; readonly wrapperId: string }
  | { readonly kind: 'other' };

/** What a key below a volume's prefix names; what is not ours is left alone. */
export function parseKey(volume: string, key: string): ParsedKey {
  const parts = key.slice(volumePrefix(volume).length).split('/');
  const [kind, first = '', second = ''] = parts;
  const sequence = /^(\d{8})\.(pack|idx)$/.exec(second);
  if ((kind === 'pack' || kind === 'idx') && parts.length === 3 && sequence !== null)
    return { kind, backup: first, sequence: Number(sequence[1]) };
  if (kind === 'manifest' && parts.length === 2 && first.endsWith('.json'))
    return { kind, backup: first.slice(0, -'.json'.length) };
  if (kind === 'pin' && parts.length === 3 && second.endsWith('.json'))
    return { kind, parent: first, child: second.slice(0, -'.json'.length) };
  if (kind === 'key' && parts.length === 2) {
    const [keyId = '', wrapperId = ''] = first.split('.');
    return { kind, keyId, wrapperId };
  }
  return { kind: 'other' };
}
