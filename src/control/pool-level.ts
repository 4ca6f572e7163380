/** How full the pool is, in words and in the log: before writers notice, and when it is over. */
import type { BackendEvent, PoolLevel } from '../backend/backend.ts';
import type { RootLog } from '../base/log.ts';

/** In ascending order of trouble; metrics give the index. */
export const POOL_LEVELS: readonly PoolLevel[] = ['ok', 'low', 'critical', 'full'];

const WORDS: Readonly<Record<PoolLevel, string>> = {
  ok: 'the pool has enough space again',
  low: 'the pool is filling up: add space, or delete or trim something',
  critical: 'the pool is nearly full: add space, or delete or trim something, before writes fail',
  full: 'the pool is full: writes that need space fail with ENOSPC until there is some',
};

export function tellLevel(
  log: Pick<RootLog, 'info' | 'warn' | 'error'>,
  { level, freeBytes }: BackendEvent & { readonly kind: 'pool-level' },
): void {
  const say = level === 'ok' ? 'info' : level === 'low' ? 'warn' : 'error';
  log[say]({ level, freeBytes }, WORDS[level]);
}
