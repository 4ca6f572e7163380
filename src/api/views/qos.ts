/** Specs of quality of service as JSON. */
import type { TypeRow } from '../../catalog/schema.ts';
import type { QosSpec } from '../../control/qos-specs.ts';
import type { Json } from '../views.ts';

export function qosView({ row, specs }: QosSpec): Json {
  return { id: row.id, name: row.name, consumer: row.consumer, specs };
}

export function associationView(type: TypeRow): Json {
  return { association_type: 'volume_type', name: type.name, id: type.id };
}
