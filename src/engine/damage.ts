/**
 * Which extents the plane refuses to read, kept in step with the state's damaged ones. Knows no reason and no record.
 *
 * An extent whose last reference went stays refused until it is free again (law 3): a request that began before may still read it.
 */
import type { Plane } from '../native/plane.ts';

export class Damage {
  readonly #plane: Plane;
  readonly #marked = new Set<number>();

  constructor(plane: Plane) {
    this.#plane = plane;
  }

  mark(addresses: readonly number[]): void {
    if (addresses.length === 0) return;
    for (const address of addresses) this.#marked.add(address);
    this.#plane.setDamaged(addresses, true);
  }

  /** Extents that are right again, or free. */
  unmark(addresses: readonly number[]): void {
    if (this.#marked.size === 0) return;
    const known = addresses.filter((address) => this.#marked.delete(address));
    if (known.length > 0) this.#plane.setDamaged(known, false);
  }
}
