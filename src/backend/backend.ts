/**
 * What the control plane may ask of a place where volumes live: what a store of volumes can be asked, whatever is behind it. The
 * extent store (`local.ts`) is the embedded one.
 */
import type { StoreEvent, VolumeStore } from '../engine/volume-store.ts';

export type {
  ByteRange,
  FillRange,
  LimitName,
  PoolLevel,
  PoolStats,
  PublishOptions,
  ScrubStatus,
  VolumeLimits,
  VolumeSpace,
  VolumeUsage,
} from '../engine/volume-store.ts';

export type VolumeBackend = VolumeStore;
export type BackendEvent = StoreEvent;
