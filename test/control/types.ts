/** Volume types as an administrator makes them. */
import { mergeExtraSpecs } from '../../src/catalog/types.ts';
import type { Control } from '../../src/control/control.ts';
import { createType, defaultType, type Specs } from '../../src/control/types.ts';
import { CALLER } from './world.ts';

export async function addType(control: Control, name: string, extraSpecs: Specs = {}): Promise<void> {
  await createType(control, CALLER, { name, description: null, isPublic: true, extraSpecs });
}

export async function setDefaultExtraSpecs(control: Control, extraSpecs: Specs): Promise<void> {
  await control.catalog.write(async (writer) => {
    await mergeExtraSpecs(writer, (await defaultType(writer)).id, Object.entries(extraSpecs));
  });
}
