/** Volume types as an administrator would have made them. */

import { insertType } from '../../src/catalog/types.ts';
import type { Control } from '../../src/control/control.ts';
import { DEFAULT_TYPE_NAME } from '../../src/control/types.ts';

export async function addType(
  control: Control,
  name: string,
  extraSpecs: Readonly<Record<string, string>> = {},
): Promise<void> {
  await control.catalog.write((writer) =>
    insertType(writer, {
      id: control.newId(),
      name,
      description: null,
      is_public: 1,
      extra_specs: JSON.stringify(extraSpecs),
      created_at: control.nowUs(),
    }),
  );
}

export async function setDefaultExtraSpecs(
  control: Control,
  extraSpecs: Readonly<Record<string, string>>,
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await writer
      .updateTable('types')
      .set({ extra_specs: JSON.stringify(extraSpecs) })
      .where('name', '=', DEFAULT_TYPE_NAME)
      .execute();
  });
}
