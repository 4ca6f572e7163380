/** The shapes of bodies about volume types. */
import { Type } from 'typebox';
import { EXTRA_SPECS_MAX } from '../../control/type-details.ts';
import { Boolish, closed, Description, INTEGER_MAX } from '../schemas.ts';

/** Keys are words of the scheduler: no spaces. */
const specEntries = {
  maxProperties: EXTRA_SPECS_MAX,
  propertyNames: { pattern: '^[a-zA-Z0-9_:.-]{1,255}$' },
  additionalProperties: { type: 'string', maxLength: 255 },
};
const ExtraSpecs = Type.Unsafe<Record<string, string>>({ type: 'object', ...specEntries });

const TypeName = Type.Unsafe<string>({
  type: 'string',
  minLength: 1,
  maxLength: 255,
  pattern: '^[^\\p{Cc}\\p{Cs}]*$',
});
const TypeNameOrNull = Type.Unsafe<string | null>({ ...TypeName, type: ['string', 'null'], minLength: 0 });
const ProjectId = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 });

export const CreateType = closed({
  volume_type: closed({
    name: TypeName,
    description: Type.Optional(Description),
    extra_specs: Type.Optional(
      Type.Unsafe<Record<string, string | null> | null>({
        ...ExtraSpecs,
        type: ['object', 'null'],
        additionalProperties: { type: ['string', 'null'], maxLength: 255 },
      }),
    ),
    'os-volume-type-access:is_public': Type.Optional(Boolish),
  }),
});

export const UpdateType = closed({
  volume_type: closed({
    name: Type.Optional(TypeNameOrNull),
    description: Type.Optional(Description),
    is_public: Type.Optional(Boolish),
  }),
});

export const ExtraSpecsBody = closed({ extra_specs: ExtraSpecs });
export const ExtraSpecBody = Type.Unsafe<Record<string, string>>({
  ...ExtraSpecs,
  minProperties: 1,
  maxProperties: 1,
});

export const TYPE_ACTION = { access: closed({ project: ProjectId }) } as const;

const EncryptionText = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 });
const encryptionFields = {
  cipher: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: 255 })),
  key_size: Type.Optional(
    Type.Unsafe<number | string | null>({
      type: ['integer', 'string', 'null'],
      minimum: 0,
      maximum: INTEGER_MAX,
      pattern: '^[0-9]{1,9}$',
    }),
  ),
};
const ControlLocation = Type.Unsafe<'front-end' | 'back-end'>({ enum: ['front-end', 'back-end'] });

export const CreateEncryption = closed({
  encryption: Type.Object({ provider: EncryptionText, control_location: ControlLocation, ...encryptionFields }),
});
export const UpdateEncryption = closed({
  encryption: Type.Object({
    provider: Type.Optional(EncryptionText),
    control_location: Type.Optional(ControlLocation),
    ...encryptionFields,
  }),
});

export const SetDefaultType = closed({ default_type: closed({ volume_type: TypeName }) });
