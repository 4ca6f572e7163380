/**
 * What a volume may hold. A block (4 KiB) is eight cells of 512 bytes, each filled with one stamp; 0 is zeros. Per block
 * the model keeps the version that is durable and every one written since: after a power loss any of them is right, before it only
 * the newest.
 */

export const BLOCK = 4096;
export const CELL = 512;
export const CELLS = BLOCK / CELL;

/** Eight stamps. */
export type Version = readonly number[];
export const ZEROS: Version = new Array<number>(CELLS).fill(0);

export function fill(stamp: number, length: number): Uint8Array {
  return new Uint8Array(new Uint32Array(length / 4).fill(stamp).buffer);
}

/** The stamps of one block as read; a cell that is not of one stamp is a third thing. */
export function stampsOf(bytes: Uint8Array): Version {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const perCell = CELL / 4;
  return Array.from({ length: CELLS }, (_, cell) => {
    const first = words[cell * perCell] ?? 0;
    for (let at = 1; at < perCell; at += 1) if (words[cell * perCell + at] !== first) return -1;
    return first;
  });
}

export function isSame(one: Version, other: Version): boolean {
  return one.every((stamp, cell) => stamp === other[cell]);
}

export class Content {
  /** By block: the durable version first, the newest last. Absent: zeros, and that is durable. */
  readonly blocks = new Map<number, Version[]>();

  newest(block: number): Version {
    return this.blocks.get(block)?.at(-1) ?? ZEROS;
  }

  versions(block: number): readonly Version[] {
    return this.blocks.get(block) ?? [ZEROS];
  }

  add(block: number, version: Version): void {
    const versions = this.blocks.get(block);
    if (versions === undefined) this.blocks.set(block, [ZEROS, version]);
    else versions.push(version);
  }

  /** What was the newest at the mark is durable: older versions cannot come back. */
  settle(mark: ReadonlyMap<number, Version>): void {
    for (const [block, version] of mark) {
      const versions = this.blocks.get(block);
      const at = versions?.indexOf(version) ?? -1;
      if (at > 0) versions?.splice(0, at);
    }
  }

  newestOfAll(): Map<number, Version> {
    return new Map([...this.blocks].map(([block, versions]) => [block, versions.at(-1) ?? ZEROS]));
  }

  /** All versions that a copy made between then and now may show. */
  between(then: ReadonlyMap<number, Version>): Content {
    const copy = new Content();
    for (const [block, versions] of this.blocks) {
      const from = Math.max(0, versions.indexOf(then.get(block) ?? ZEROS));
      copy.blocks.set(block, versions.slice(from));
    }
    return copy;
  }

  /** This is what it is, and stays. */
  pin(block: number, version: Version): void {
    this.blocks.set(block, [version]);
  }
}
