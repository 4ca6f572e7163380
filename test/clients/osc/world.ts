/** What the suites of this folder share: the two users who run them, and the daemon they talk to. */
import type { Daemon } from '../../support/daemon.ts';
import type { Osc } from '../../support/openstack-cli.ts';

export type World = {
  /** An administrator and an ordinary member of one project. Without authentication they are the same. */
  readonly admin: Osc;
  readonly user: Osc;
  readonly projectId: string;
  readonly daemon: Daemon;
  /** Headers of a request that `user` would send: for what this client has no command for. */
  readonly headers: Readonly<Record<string, string>>;
};

/** Tests are defined before the daemon they run against is there. */
export type Suite = (world: () => World) => void;
