/** What every implementation of `Files` has to do. Each has a short test file of its own that runs this. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Files } from '../../src/base/files.ts';

export type FilesUnderTest = {
  readonly files: Files;
  /** The same folder as another process would open it. */
  again(): Files;
  close(): Promise<void>;
};

const KIB = 1024;

export function filesContract(name: string, open: () => Promise<FilesUnderTest>): void {
  describe(`files: ${name}`, () => {
    let under: FilesUnderTest;
    let files: Files;

    beforeEach(async () => {
      under = await open();
      files = under.files;
      files.makeFolder('pool/extents');
    });
    afterEach(() => under.close());

    function codeOf(work: () => unknown): string {
      try {
        work();
      } catch (error) {
        return error instanceof Error && 'code' in error ? String(error.code) : String(error);
      }
      return 'no failure';
    }

    it('reads what was written, wherever it was', () => {
      const file = files.open('pool/a', 'create');
      file.write(5000, Uint8Array.of(1, 2, 3));
      file.write(4999, Uint8Array.of(9, 8));
      const target = new Uint8Array(5);
      expect(file.read(4998, target)).toBe(5);
      expect([...target]).toEqual([0, 9, 8, 2, 3]);
      file.close();
    });

    it('reads less only at the end of the file, and leaves the rest of the target alone', () => {
      const file = files.open('pool/a', 'create');
      file.write(0, new Uint8Array(10).fill(7));
      const target = new Uint8Array(16).fill(1);
      expect(file.read(6, target)).toBe(4);
      expect([...target.subarray(0, 6)]).toEqual([7, 7, 7, 7, 1, 1]);
      expect(file.read(10, target)).toBe(0);
      expect(file.read(1 << 20, target)).toBe(0);
      file.close();
    });

    it('shows holes as zeros', () => {
      const file = files.open('pool/a', 'create');
      file.write(100 * KIB, Uint8Array.of(1));
      expect(file.size()).toBe(100 * KIB + 1);
      const target = new Uint8Array(8 * KIB).fill(1);
      expect(file.read(30 * KIB, target)).toBe(8 * KIB);
      expect(target.every((byte) => byte === 0)).toBe(true);
      file.close();
    });

    it('grows and shrinks to a size; what was cut off does not come back', () => {
      const file = files.open('pool/a', 'create');
      file.write(0, new Uint8Array(10 * KIB).fill(7));
      file.truncate(5000);
      expect(file.size()).toBe(5000);
      file.truncate(10 * KIB);
      const target = new Uint8Array(10 * KIB);
      expect(file.read(0, target)).toBe(10 * KIB);
      expect(target.subarray(0, 5000).every((byte) => byte === 7)).toBe(true);
      expect(target.subarray(5000).every((byte) => byte === 0)).toBe(true);
      file.close();
    });

    it('creates a file once and opens what is there after that', () => {
      files.open('pool/a', 'create').close();
      const first = files.open('pool/a', 'existing');
      first.write(0, Uint8Array.of(1));
      first.close();
      const second = files.open('pool/a', 'create');
      expect(second.size()).toBe(1);
      second.close();
    });

    it('fails with ENOENT for a file that is not there', () => {
      expect(files.exists('pool/a')).toBe(false);
      expect(codeOf(() => files.open('pool/a', 'existing'))).toBe('ENOENT');
      expect(codeOf(() => files.open('pool/a', 'read'))).toBe('ENOENT');
    });

    it('does not write through a file opened for reading', () => {
      files.open('pool/a', 'create').close();
      const file = files.open('pool/a', 'read');
      expect(codeOf(() => file.write(0, Uint8Array.of(1)))).toMatch(/^E/);
      expect(file.size()).toBe(0);
      file.close();
    });

    it('fails after a close', () => {
      const file = files.open('pool/a', 'create');
      file.close();
      expect(codeOf(() => file.write(0, Uint8Array.of(1)))).toBe('EBADF');
      expect(codeOf(() => file.read(0, new Uint8Array(1)))).toBe('EBADF');
    });

    it('shows one file through several handles', () => {
      const [one, other] = [files.open('pool/a', 'create'), files.open('pool/a', 'read')];
      one.write(0, Uint8Array.of(1, 2));
      const target = new Uint8Array(2);
      expect(other.read(0, target)).toBe(2);
      expect([...target]).toEqual([1, 2]);
      one.close();
      other.close();
    });

    it('lists a folder in order, and not what lies deeper', () => {
      files.open('pool/b', 'create').close();
      files.open('pool/a', 'create').close();
      files.open('pool/extents/c', 'create').close();
      expect(files.list('pool')).toEqual(['a', 'b', 'extents']);
      expect(files.list('pool/extents')).toEqual(['c']);
    });

    it('removes files, also those that are not there; an open one stays readable', () => {
      const file = files.open('pool/a', 'create');
      file.write(0, Uint8Array.of(5));
      files.remove('pool/a');
      files.remove('pool/a');
      expect(files.exists('pool/a')).toBe(false);
      const target = new Uint8Array(1);
      file.read(0, target);
      expect(target[0]).toBe(5);
      file.close();
      const anew = files.open('pool/a', 'create');
      expect(anew.size()).toBe(0);
      anew.close();
    });

    it('syncs files and folders', async () => {
      const file = files.open('pool/extents/a', 'create');
      file.write(0, Uint8Array.of(1));
      await file.sync();
      await files.syncFolder('pool/extents');
      await files.syncFolder('pool');
      await files.syncFolder('.');
      file.close();
    });

    it('makes a folder that is there already', () => {
      files.makeFolder('pool/extents');
      expect(files.exists('pool/extents')).toBe(true);
    });

    it('knows how much space there is', () => {
      const { totalBytes, freeBytes } = files.space();
      expect(totalBytes).toBeGreaterThan(0);
      expect(freeBytes).toBeGreaterThan(0);
      expect(freeBytes).toBeLessThanOrEqual(totalBytes);
    });

    it('gives a lock to one at a time, and says who has it', () => {
      const release = files.lock('lock');
      expect(codeOf(() => under.again().lock('lock'))).toBe('locked');
      release();
      under.again().lock('lock')();
    });
  });
}
