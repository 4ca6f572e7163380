/** The shapes of bodies about specs of quality of service. What a value may be is control's. */
import { Type } from 'typebox';
import { QOS_KEYS_MAX } from '../../control/qos-specs.ts';
import { closed } from '../schemas.ts';

const KEY = '^[a-zA-Z0-9_:. -]{1,255}$';
/** Clients send numbers as numbers or as text; they are kept as text. */
const Value = { type: ['string', 'integer'], maxLength: 255, minimum: 0 };

const entries = { propertyNames: { pattern: KEY }, additionalProperties: Value, maxProperties: QOS_KEYS_MAX + 2 };

export const CreateQosSpec = closed({
  qos_specs: Type.Unsafe<Record<string, string | number> & { name: string }>({
    type: 'object',
    required: ['name'],
    properties: { name: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[^\\p{Cc}\\p{Cs}]*$' } },
    ...entries,
  }),
});

export const UpdateQosSpec = closed({
  qos_specs: Type.Unsafe<Record<string, string | number>>({ type: 'object', minProperties: 1, ...entries }),
});

export const DeleteQosKeys = closed({
  keys: Type.Unsafe<string[]>({
    type: 'array',
    uniqueItems: true,
    maxItems: QOS_KEYS_MAX,
    items: { type: 'string', minLength: 1, maxLength: 255 },
  }),
});
