/**
 * How much of the drop list goes into one frame of the journal: so much that a frame keeps the thread for about a millisecond, and
 * not less, since each waits for a sync. What a step does is the state's business.
 */

import type { State } from './state.ts';

/** Pages of which everything is counted down: about 1,000 counts each. 16 of them take about a millisecond. */
export const DROP_STEPS = 16;
/** Pages that others refer to, and that only lose a reference: tens of nanoseconds each. */
export const SHARED_STEPS_MAX = 8192;

/** A page that goes leaves up to 1,024 children on the list, most of which are shared where little is freed. */
export function dropSteps(state: State): number {
  const { drops, pages } = state;
  const taken = new Map<number, number>();
  let shared = 0;
  for (let at = drops.length - 1; at >= 0 && shared < SHARED_STEPS_MAX; at -= 1, shared += 1) {
    const id = drops[at] ?? 0;
    const before = taken.get(id) ?? 0;
    if (pages.references(id) - before <= 1) break;
    taken.set(id, before + 1);
  }
  return shared + DROP_STEPS;
}
