import { describe, expect, test } from 'vitest';
import { formatBytes, parseSizeGib } from '../../src/cli/sizes.ts';

describe('a size', () => {
  test.each([
    ['1', 1],
    ['10', 10],
    ['10GiB', 10],
    ['10 gib', 10],
    ['10G', 10],
    ['2TiB', 2048],
    ['1.5TiB', 1536],
    ['2048MiB', 2],
    ['1PiB', 1 << 20],
    ['2147483647', 2147483647],
  ])('%s is %i GiB', (text, gib) => {
    expect(parseSizeGib(text)).toBe(gib);
  });

  test.each([
    ['512MiB', 'Nearest: 1GiB.'],
    ['0', 'Nearest: 1GiB.'],
    ['1.5', 'Nearest: 1GiB or 2GiB.'],
    ['1536MiB', 'Nearest: 1GiB or 2GiB.'],
    ['10GB', 'Nearest: 9GiB or 10GiB.'],
    ['1023.5GiB', 'Nearest: 1023GiB or 1TiB.'],
  ])('%s is refused with the nearest that work', (text, message) => {
    expect(() => parseSizeGib(text)).toThrow(message);
  });

  test.each(['', 'ten', '-1', '1e3', '10 apples', '0x10', '1,5'])('"%s" is refused as no size', (text) => {
    expect(() => parseSizeGib(text)).toThrow(/is no size. Sizes are whole GiB/);
  });

  test('above the API’s limit is refused with the limit', () => {
    expect(() => parseSizeGib('2147483648')).toThrow(/more than the largest size, 2147483647GiB/);
  });

  test('is shown in the unit that fits', () => {
    expect([0, 1023, 1024, 1536, 10 * 2 ** 30, 2 ** 41 + 2 ** 40, 150.4 * 2 ** 20].map(formatBytes)).toEqual([
      ...['0 bytes', '1023 bytes', '1 KiB', '1.5 KiB', '10 GiB', '3 TiB', '150 MiB'],
    ]);
  });
});
