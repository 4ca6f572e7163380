/** The shapes of bodies about services. */
import { Type } from 'typebox';
import { closed } from '../schemas.ts';

const Word = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 });
const WordOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: 255 });

const named = {
  /** The newer name of `service`. */
  binary: Type.Optional(Word),
  service: Type.Optional(Word),
  host: Word,
  cluster: Type.Optional(WordOrNull),
};
export const NameService = closed(named);
export const DisableService = closed({
  ...named,
  disabled_reason: Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255, pattern: '\\S' }),
});

export const NameHost = closed({ host: Word, cluster: Type.Optional(WordOrNull) });
export const FailoverHost = closed({
  host: Word,
  backend_id: Type.Optional(WordOrNull),
  cluster: Type.Optional(WordOrNull),
});

const logged = {
  binary: Type.Optional(
    Type.Unsafe<string | null>({
      enum: [null, '*', '', 'cinder-api', 'cinder-volume', 'cinder-scheduler', 'cinder-backup'],
    }),
  ),
  server: Type.Optional(WordOrNull),
  prefix: Type.Optional(WordOrNull),
};
export const GetLog = closed(logged);
export const SetLog = closed({ ...logged, level: WordOrNull });

const Truth = Type.Unsafe<boolean | string | number | null>({ type: ['boolean', 'string', 'integer', 'null'] });
export const CleanUpWorkers = closed({
  cluster_name: Type.Optional(WordOrNull),
  disabled: Type.Optional(Truth),
  host: Type.Optional(WordOrNull),
  is_up: Type.Optional(Truth),
  binary: Type.Optional(Type.Unsafe<string | null>({ enum: [null, 'cinder-volume', 'cinder-scheduler'] })),
  resource_id: Type.Optional(WordOrNull),
  resource_type: Type.Optional(WordOrNull),
  service_id: Type.Optional(Type.Unsafe<number | string | null>({ type: ['integer', 'string', 'null'] })),
});
