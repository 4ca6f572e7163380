/** Takes back what a failed creation left in the backend. */
import type { Control } from '../control.ts';

/** As far as possible: what is in `error` can be deleted, and that removes what is left. */
export async function undo(control: Control, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    try {
      await control.exports.withdraw(id);
      await control.backend.delete(id);
    } catch (error) {
      control.log.warn({ id, err: error }, 'what is left of a failed creation goes when its object is deleted');
    }
  }
}
