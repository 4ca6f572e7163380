/** The shapes of bodies about transfers. */
import { Type } from 'typebox';
import { Boolish, closed, Id, Name } from '../schemas.ts';

const NewTransfer = { volume_id: Id, name: Type.Optional(Name) };

export const CreateTransfer = closed({ transfer: closed(NewTransfer) });
/** From 3.55, on the newer path. */
export const CreateTransferWithSnapshots = closed({
  transfer: closed({ ...NewTransfer, no_snapshots: Type.Optional(Boolish) }),
});
export const AcceptTransfer = closed({
  accept: closed({
    auth_key: Type.Unsafe<string | number>({ type: ['string', 'integer'], maxLength: 255 }),
  }),
});
