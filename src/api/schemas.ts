/**
 * The shapes of request bodies, and the check of a body against one. Messages name the field, its value and what is
 * wanted. It knows shapes; what a value means is control's.
 */
import type { FastifyRequest } from 'fastify';
import { type Static, type TObject, type TProperties, type TSchema, Type } from 'typebox';
import { METADATA_KEYS_MAX, VOLUME_GIB_MAX } from '../control/control.ts';
import { SNAPSHOT_STATUSES, VOLUME_STATUSES } from '../control/states.ts';
import { badRequest } from './faults.ts';

/** The largest number a body may hold where nothing smaller is said. */
export const INTEGER_MAX = 2147483647;

const TRUE_WORDS = ['true', 'True', 'TRUE', '1', 'on', 'On', 'ON', 'yes', 'Yes', 'YES', 'y', 'Y', 't', 'T'];
const FALSE_WORDS = ['false', 'False', 'FALSE', '0', 'off', 'Off', 'OFF', 'no', 'No', 'NO', 'n', 'N', 'f', 'F'];

const BOOLISH = [true, false, 1, 0, ...TRUE_WORDS, ...FALSE_WORDS];
export const Boolish = Type.Unsafe<boolean | string | number>({ enum: BOOLISH });

/** Null for what is no truth value. */
export function booleanOf(value: unknown): boolean | null {
  if (typeof value === 'boolean') return value;
  const word = String(value);
  if (TRUE_WORDS.includes(word)) return true;
  return FALSE_WORDS.includes(word) ? false : null;
}

/** No control characters and no half characters: names are shown to people and become names of exports. */
export const Name = Type.Unsafe<string | null>({
  type: ['string', 'null'],
  maxLength: 255,
  pattern: '^[^\\p{Cc}\\p{Cs}]*$',
});
/** Descriptions may have lines. */
export const Description = Type.Unsafe<string | null>({
  type: ['string', 'null'],
  maxLength: 255,
  pattern: '^([^\\p{Cc}\\p{Cs}]|[\\n\\r\\t])*$',
});
const UUID = '^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$';
export const Id = Type.Unsafe<string>({ type: 'string', pattern: UUID });
export const IdOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'], pattern: UUID });
const Anything = Type.Unknown();

/** GiB: a number or digits. The range of digits is checked by `gibOf`. */
const Gib = Type.Unsafe<number | string>({
  type: ['integer', 'string'],
  minimum: 1,
  maximum: VOLUME_GIB_MAX,
  pattern: '^[0-9]{1,12}$',
});
const GibOrNull = Type.Unsafe<number | string | null>({ ...Gib, type: ['integer', 'string', 'null'] });

const MetadataEntries = {
  maxProperties: METADATA_KEYS_MAX,
  propertyNames: { pattern: '^[a-zA-Z0-9_:. /-]{1,255}$' },
  additionalProperties: { type: 'string', maxLength: 255 },
};
const Metadata = Type.Unsafe<Record<string, string>>({ type: 'object', ...MetadataEntries });
export const MetadataOrNull = Type.Unsafe<Record<string, string> | null>({
  type: ['object', 'null'],
  ...MetadataEntries,
});

export const closed = <P extends TProperties>(properties: P): TObject<P> =>
  Type.Object(properties, { additionalProperties: false });

const NewVolumeFields = {
  size: Type.Optional(GibOrNull),
  name: Type.Optional(Name),
  display_name: Type.Optional(Name),
  description: Type.Optional(Description),
  display_description: Type.Optional(Description),
  volume_type: Type.Optional(Name),
  availability_zone: Type.Optional(Name),
  metadata: Type.Optional(MetadataOrNull),
  snapshot_id: Type.Optional(IdOrNull),
  source_volid: Type.Optional(IdOrNull),
  backup_id: Type.Optional(IdOrNull),
  group_id: Type.Optional(IdOrNull),
  consistencygroup_id: Type.Optional(IdOrNull),
  imageRef: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'] })),
  image_id: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'] })),
  multiattach: Type.Optional(Type.Unsafe<boolean | string | number | null>({ enum: [null, ...BOOLISH] })),
};
const Hints = Type.Optional(Type.Unsafe<object | null>({ type: ['object', 'null'] }));
export const CreateVolume = closed({ volume: Type.Object(NewVolumeFields), 'OS-SCH-HNT:scheduler_hints': Hints });
export const CreateVolumeStrict = closed({ volume: closed(NewVolumeFields), 'OS-SCH-HNT:scheduler_hints': Hints });

const VolumeChanges = {
  name: Type.Optional(Name),
  display_name: Type.Optional(Name),
  description: Type.Optional(Description),
  display_description: Type.Optional(Description),
  metadata: Type.Optional(MetadataOrNull),
};
export const UpdateVolume = closed({ volume: Type.Object(VolumeChanges) });
export const UpdateVolumeStrict = closed({
  volume: Type.Object(VolumeChanges, { additionalProperties: false, minProperties: 1 }),
});

export const CreateSnapshot = closed({
  snapshot: closed({
    volume_id: IdOrNull,
    name: Type.Optional(Name),
    display_name: Type.Optional(Name),
    description: Type.Optional(Description),
    display_description: Type.Optional(Description),
    metadata: Type.Optional(MetadataOrNull),
    force: Type.Optional(Boolish),
  }),
});
export const UpdateSnapshot = closed({
  snapshot: Type.Object(
    {
      name: Type.Optional(Name),
      display_name: Type.Optional(Name),
      description: Type.Optional(Description),
      display_description: Type.Optional(Description),
    },
    { additionalProperties: false, minProperties: 1 },
  ),
});

export const MetadataBody = closed({ metadata: Metadata });
export const MetaBody = closed({
  meta: Type.Unsafe<Record<string, string>>({ ...Metadata, minProperties: 1, maxProperties: 1 }),
});

export const oneOf = (words: readonly string[]): ReturnType<typeof Type.Unsafe<string>> =>
  Type.Unsafe<string>({ type: 'string', enum: [...new Set(words.flatMap((word) => [word, word.toUpperCase()]))] });

const oneOfOrNull = (words: readonly string[]): ReturnType<typeof Type.Unsafe<string | null>> =>
  Type.Unsafe<string | null>({ enum: [null, ...new Set(words.flatMap((word) => [word, word.toUpperCase()]))] });

/** The value below each action's key. */
export const ACTION = {
  nothing: Anything,
  extend: closed({ new_size: Gib }),
  bootable: closed({ bootable: Boolish }),
  readonly: closed({ readonly: Boolish }),
  resetVolume: Type.Object(
    {
      status: Type.Optional(oneOfOrNull(VOLUME_STATUSES.filter((status) => status !== 'reverting'))),
      attach_status: Type.Optional(oneOfOrNull(['attached', 'detached'])),
      migration_status: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'] })),
    },
    { additionalProperties: false, minProperties: 1 },
  ),
  resetSnapshot: closed({ status: oneOf(SNAPSHOT_STATUSES) }),
  revert: closed({ snapshot_id: Id }),
  attach: closed({
    instance_uuid: Type.Optional(IdOrNull),
    host_name: Type.Optional(Name),
    mountpoint: Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 }),
    mode: Type.Optional(Type.Unsafe<'rw' | 'ro'>({ enum: ['rw', 'ro'] })),
  }),
  detach: Type.Unsafe<{ attachment_id?: string | null } | null>({
    type: ['object', 'null'],
    properties: { attachment_id: IdOrNull },
    additionalProperties: false,
  }),
  imageMetadata: closed({ metadata: Metadata }),
  imageKey: closed({ key: Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 }) }),
  retype: closed({
    new_type: Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 }),
    migration_policy: Type.Optional(Type.Unsafe<string | null>({ enum: ['on-demand', 'never', null] })),
  }),
} as const;

const Limit = Type.Unsafe<number | string>({
  type: ['integer', 'string'],
  minimum: -1,
  maximum: INTEGER_MAX,
  pattern: '^(-1|[0-9]{1,10})$',
});
const Limits = Type.Unsafe<Record<string, number | string>>({
  type: 'object',
  minProperties: 1,
  properties: { tenant_id: {}, project_id: {}, id: {}, force: {} },
  additionalProperties: Limit,
});
export const QuotaSet = closed({ quota_set: Limits });
export const QuotaClassSet = closed({ quota_class_set: Limits });

/** The value, as its schema says it is; otherwise 400. */
export function checked<Schema extends TSchema>(
  request: FastifyRequest,
  schema: Schema,
  value: unknown,
): Static<Schema> {
  if (request.validateInput(value, schema)) return value as Static<Schema>;
  const errors = request.getValidationFunction(schema)?.errors ?? [];
  const first = errors.find((error) => error.keyword !== 'propertyNames') ?? errors[0];
  throw badRequest(first === undefined ? 'Malformed request body' : sentence(first as ValidationError));
}

type ValidationError = {
  readonly instancePath: string;
  readonly keyword: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly data?: unknown;
  readonly message?: string;
  readonly propertyName?: string;
};

function sentence(error: ValidationError): string {
  const field = error.instancePath.split('/').pop() ?? '';
  const complaint = complaintOf(error);
  if (field === '' && error.propertyName === undefined) return complaint;
  return `Invalid input for field/attribute ${decodePointer(field)}. Value: ${shown(error.data)}. ${complaint}`;
}

function complaintOf({ keyword, params, data, message, propertyName }: ValidationError): string {
  const value = shown(data);
  switch (keyword) {
    case 'required':
      return `'${params['missingProperty']}' is a required property`;
    case 'additionalProperties':
      return `Additional properties are not allowed ('${params['additionalProperty']}' was unexpected)`;
    case 'minimum':
      return `${value} is less than the minimum of ${params['limit']}`;
    case 'maximum':
      return `${value} is greater than the maximum of ${params['limit']}`;
    case 'maxLength':
      return `${value} is too long: at most ${params['limit']} characters are allowed`;
    case 'minLength':
      return `${value} is too short`;
    case 'minProperties':
      return `${value} does not have enough properties`;
    case 'maxProperties':
      return `It has too many properties: at most ${params['limit']} are allowed`;
    case 'type':
      return `${value} is not of type ${[params['type']]
        .flat()
        .map((type) => `'${type}'`)
        .join(', ')}`;
    case 'enum':
      return `${value} is not one of ${JSON.stringify(params['allowedValues'])}`;
    case 'pattern': {
      const text = propertyName === undefined ? value : `the key '${propertyName}'`;
      if (String(params['pattern']).includes('\\p{Cc}')) return `${text} contains control or incomplete characters`;
      return `${text} does not match '${params['pattern']}'`;
    }
    default:
      return message ?? 'The value is not valid';
  }
}

function decodePointer(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}

/** As JSON, cut where it gets long. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

/** A size that the schema let through; digits get the same limits as numbers. */
export function gibOf(field: string, value: number | string): number {
  const size = Number(value);
  const complain = (what: string): never => {
    throw badRequest(`Invalid input for field/attribute ${field}. Value: ${value}. ${value} is ${what}`);
  };
  if (size < 1) complain('less than the minimum of 1');
  if (size > VOLUME_GIB_MAX) complain(`greater than the maximum of ${VOLUME_GIB_MAX}`);
  return size;
}

/** Canonical form; ids may be given without dashes. */
export function idOf(value: string): string {
  const hex = value.replaceAll('-', '').toLowerCase();
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
