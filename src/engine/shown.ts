/** Who shows something, in a running engine: the walk of places.ts, a slice per turn. What changes meanwhile may or may not be in the answer. */
import type { Clock } from '../base/clock.ts';
import { PLACES_MAX, type Places, placesOf, type Wanted } from './places.ts';
import type { State } from './state.ts';

/** Read and walked in one turn: a few milliseconds. */
const PAGES_PER_TURN = 32;

export async function whoShows(
  { state, clock }: { state: State; clock: Clock },
  wanted: Omit<Wanted, 'max'>,
): Promise<Places> {
  const walk = placesOf(state, { ...wanted, max: PLACES_MAX });
  for (let walked = 1; ; walked += 1) {
    const step = walk.next();
    if (step.done === true) return step.value;
    if (walked % PAGES_PER_TURN === 0) await clock.pause();
  }
}
