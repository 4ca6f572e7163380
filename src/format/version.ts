/** The format versions that this program writes; it reads every one up to them. docs/format.md says what each changed. */

export const POOL_VERSION = 1;
export const JOURNAL_VERSION = 2;
export const CHECKPOINT_VERSION = 2;
export const PAGE_VERSION = 1;
