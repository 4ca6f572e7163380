/** The shapes of bodies about groups, their types and their snapshots. */
import { Type } from 'typebox';
import { GROUP_STATUSES } from '../../control/states.ts';
import { Boolish, closed, Description, Id, IdOrNull, Name, oneOf } from '../schemas.ts';

/** A thousand ids with commas. */
const ID_LIST_CHARS_MAX = 37_000;

const Word = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255, pattern: '\\S' });
const IdList = Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: ID_LIST_CHARS_MAX });
const About = { name: Type.Optional(Name), description: Type.Optional(Description) };

export const CreateGroup = closed({
  group: closed({
    ...About,
    group_type: Word,
    volume_types: Type.Array(Word, { minItems: 1, maxItems: 1000, uniqueItems: true }),
    availability_zone: Type.Optional(Name),
  }),
});
export const UpdateGroup = closed({
  group: Type.Object(
    { ...About, add_volumes: Type.Optional(IdList), remove_volumes: Type.Optional(IdList) },
    { additionalProperties: false, minProperties: 1 },
  ),
});

/** The value below each action's key. */
export const GROUP_ACTION = {
  createFromSource: closed({
    ...About,
    // Clients name both, and the one they do not mean is null.
    source_group_id: Type.Optional(IdOrNull),
    group_snapshot_id: Type.Optional(IdOrNull),
  }),
  delete: closed({ 'delete-volumes': Type.Optional(Boolish) }),
  resetStatus: closed({ status: oneOf(GROUP_STATUSES) }),
  nothing: Type.Unknown(),
} as const;

export const CreateGroupSnapshot = closed({ group_snapshot: closed({ ...About, group_id: Id }) });

const specs = {
  type: 'object',
  maxProperties: 256,
  propertyNames: { pattern: '^[a-zA-Z0-9_:.-]{1,255}$' },
  additionalProperties: { type: ['string', 'null'], maxLength: 255 },
};
const Specs = Type.Unsafe<Record<string, string | null>>(specs);

export const CreateGroupType = closed({
  group_type: closed({
    name: Word,
    description: Type.Optional(Description),
    is_public: Type.Optional(Boolish),
    group_specs: Type.Optional(Specs),
  }),
});
export const UpdateGroupType = closed({
  group_type: closed({
    name: Type.Optional(Name),
    description: Type.Optional(Description),
    is_public: Type.Optional(Boolish),
  }),
});
export const GroupSpecsBody = closed({ group_specs: Specs });
export const OneGroupSpec = Type.Unsafe<Record<string, string | null>>({
  ...specs,
  minProperties: 1,
  maxProperties: 1,
});
