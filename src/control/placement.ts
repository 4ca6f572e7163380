/**
 * Whether a volume of a type may be on the pool: extra specs against capabilities, as schedulers of this protocol match
 * them, and the sizes and zones that a type allows. It knows no volume's state.
 */
import { Failure } from '../base/errors.ts';
import type { Reader, TypeRow } from '../catalog/schema.ts';
import { findEncryption, findType } from '../catalog/types.ts';
import { findVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { type Capabilities, type Capability, capabilities } from './pools.ts';
import { requireVolumeService } from './services.ts';
import { type Specs, specsOf } from './types.ts';

/** Extra specs with a scope are for others; this scope alone is for us. */
const OUR_SCOPE = 'capabilities';

/** Fails with `no_backend` where nothing can hold the volume. */
export async function requirePlace(control: Control, volumeId: string): Promise<void> {
  await requireVolumeService(control);
  const { reader } = control.catalog;
  const row = await findVolume(reader, volumeId);
  const type = row === undefined ? undefined : await findType(reader, row.type_id);
  if (type === undefined) return;
  const reason = await unfit(control, reader, type);
  if (reason !== null) throw new Failure('no_backend', { reason });
}

/** Why volumes of a type cannot be here; null when they can. */
export async function unfit(control: Control, reader: Reader, type: TypeRow): Promise<string | null> {
  if ((await findEncryption(reader, type.id)) !== undefined)
    return `volume type ${type.name} asks for encryption, which no backend offers.`;
  const specs = await specsOf(reader, type.id);
  if (Object.keys(specs).length === 0) return null;
  const offered = await capabilities(control);
  const unmet = Object.entries(specs).find(([key, wanted]) => !isMet(offered, key, wanted));
  if (unmet === undefined) return null;
  const [key, wanted] = unmet;
  return `volume type ${type.name} wants ${key} '${wanted}', which no backend offers.`;
}

function isMet(offered: Capabilities, key: string, wanted: string): boolean {
  const [scope, ...rest] = key.split(':');
  if (rest.length > 0 && scope !== OUR_SCOPE) return true;
  const name = rest.length > 0 ? rest.join(':') : key;
  const value = Object.hasOwn(offered, name) ? offered[name] : undefined;
  return value !== undefined && matches(value, wanted);
}

const NUMBERS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '=': (a, b) => a >= b,
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '>=': (a, b) => a >= b,
  '<=': (a, b) => a <= b,
};
const TEXTS: Readonly<Record<string, (a: string, b: string) => boolean>> = {
  's==': (a, b) => a === b,
  's!=': (a, b) => a !== b,
  's<': (a, b) => a < b,
  's<=': (a, b) => a <= b,
  's>': (a, b) => a > b,
  's>=': (a, b) => a >= b,
  '<in>': (a, b) => a.includes(b),
};

/** One requirement: an operator and a value, `<or>` alternatives, or a value that must be equal. */
export function matches(value: Capability, wanted: string): boolean {
  const [operator = '', operand, ...more] = wanted.split(/\s+/).filter((word) => word !== '');
  const isOperator = ['<or>', '<is>'].includes(operator) || own(NUMBERS, operator) || own(TEXTS, operator);
  if (!isOperator) return value === wanted;
  if (value === null || operand === undefined) return false;
  if (operator === '<or>') return [operand, ...more.filter((word) => word !== '<or>')].includes(String(value));
  if (operator === '<is>') return isTrue(value) === isTrue(operand);
  const numbers = own(NUMBERS, operator);
  if (numbers !== undefined) {
    const [a, b] = [Number(value), Number(operand)];
    return !Number.isNaN(a) && !Number.isNaN(b) && numbers(a, b);
  }
  return own(TEXTS, operator)?.(String(value), operand) ?? false;
}

function own<Value>(table: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

function isTrue(value: Capability): boolean {
  return ['t', 'true', 'on', 'yes', 'y', '1'].includes(String(value).toLowerCase());
}

/** The sizes and zones that a type's extra specs allow; refuses at once, before anything is accepted. */
export async function requireAllowed(
  control: Control,
  reader: Reader,
  { type, sizeGib }: { type: TypeRow; sizeGib: number },
): Promise<void> {
  const specs = await specsOf(reader, type.id);
  const refuse = (what: string): Failure =>
    new Failure('bad_request', { reason: `Invalid input received: ${what} for volume type '${type.name}'.` });
  const min = sizeIn(specs, 'provisioning:min_vol_size');
  if (min !== null && sizeGib < min)
    throw refuse(`Specified volume size of '${sizeGib}' GB is less than the minimum required size of '${min}' GB`);
  const max = sizeIn(specs, 'provisioning:max_vol_size');
  if (max !== null && sizeGib > max)
    throw refuse(`Specified volume size of '${sizeGib}' GB is greater than the maximum allowable size of '${max}' GB`);
  const zones = specs['RESKEY:availability_zones'];
  const zone = control.settings.availabilityZone;
  if (zones === undefined || zones.split(',').some((one) => one.trim() === zone)) return;
  throw refuse(`Availability zone '${zone}' is not among the zones '${zones}'`);
}

/** Null where there is none, or no number. */
function sizeIn(specs: Specs, key: string): number | null {
  const text = Object.hasOwn(specs, key) ? specs[key] : undefined;
  return text !== undefined && /^[0-9]{1,12}$/.test(text) ? Number(text) : null;
}
