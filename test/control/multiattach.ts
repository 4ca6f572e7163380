/** Gives the default type extra specs, as an administrator would. */
import type { Control } from '../../src/control/control.ts';
import { DEFAULT_TYPE_NAME } from '../../src/control/types.ts';

export async function updateType(control: Control, extraSpecs: Readonly<Record<string, string>>): Promise<void> {
  await control.catalog.write(async (writer) => {
    await writer
      .updateTable('types')
      .set({ extra_specs: JSON.stringify(extraSpecs) })
      .where('name', '=', DEFAULT_TYPE_NAME)
      .execute();
  });
}
