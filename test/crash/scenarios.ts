/**
 * For each kind of task something that makes one, on objects of its own, and what must be true once it has ended. All begin with
 * copies of one volume that has data, in a project of their own.
 */
import { NbdClient } from '../../src/image/nbd-client.ts';
import type { Answer, ApiPool, Json } from '../support/api-pool.ts';
import type { Daemon } from '../support/daemon.ts';

/** What all rounds share: a volume with data, its snapshot, a backup to restore and one to verify, types. */
export type Stock = {
  readonly snapshot: string;
  readonly restorable: string;
  readonly verifiable: string;
  readonly groupType: string;
};

/** One attempt of one kind. */
export type Attempt = {
  readonly act: () => Promise<Answer>;
  /** Whether what was accepted has happened, by what the API says; `made` is the object of the answer. */
  readonly hasHappened: (made: Json) => Promise<boolean>;
};

type Prepare = (place: Place) => Promise<Attempt>;

/** A project, and requests in it. */
export class Place {
  readonly stock: Stock;
  readonly #daemon: Daemon;
  readonly #api: ApiPool;
  readonly #project: string;

  constructor(daemon: Daemon, { api, stock, project }: { api: ApiPool; stock: Stock; project: string }) {
    this.#daemon = daemon;
    this.#api = api;
    this.stock = stock;
    this.#project = project;
  }

  ask(method: string, path: string, body?: unknown): Promise<Answer> {
    return this.#api.ask(method, `/${this.#project}${path}`, body);
  }

  act(volume: string, body: unknown): Promise<Answer> {
    return this.ask('POST', `/volumes/${volume}/action`, body);
  }

  async make(path: string, body: unknown): Promise<Json> {
    const { status, body: made } = await this.ask('POST', path, body);
    if (status >= 300) throw new Error(`POST ${path}: ${status} ${JSON.stringify(made)}`);
    const object = Object.values(made)[0] as Json;
    await this.#settled(`${path}/${object.id}`);
    return object;
  }

  volume(fields: object = {}): Promise<Json> {
    return this.make('/volumes', { volume: { snapshot_id: this.stock.snapshot, ...fields } });
  }

  snapshot(volume: string): Promise<Json> {
    return this.make('/snapshots', { snapshot: { volume_id: volume } });
  }

  async group(): Promise<string> {
    const { groupType } = this.stock;
    const { id } = await this.make('/groups', { group: { group_type: groupType, volume_types: ['__DEFAULT__'] } });
    const member = { volume_type: '__DEFAULT__', group_id: id };
    await Promise.all([this.volume(member), this.volume(member)]);
    return id;
  }

  /** One block, by a client that is gone when this returns. */
  async write(volume: string): Promise<void> {
    {
      await using client = await NbdClient.connect(this.#daemon.uri(volume));
      await client.write(0, Buffer.alloc(65536, 7));
      await client.flush();
    }
    const path = `/quarry/volumes/${volume}/usage`;
    while ((await this.ask('GET', path)).body.usage.connections > 0);
  }

  async is(path: string, fields: object): Promise<boolean> {
    const object = await this.#shown(path);
    return object !== null && Object.entries(fields).every(([key, value]) => object[key] === value);
  }

  async isGone(path: string): Promise<boolean> {
    return (await this.#shown(path)) === null;
  }

  async #shown(path: string): Promise<Json> {
    const { status, body } = await this.ask('GET', path);
    return status === 404 ? null : Object.values(body)[0];
  }

  /** Each look is a request and its answer, so nothing is waited between. */
  async #settled(path: string): Promise<void> {
    for (;;) {
      const object = await this.#shown(path);
      if (object.status === 'available') return;
      if (!/ing/.test(object.status)) throw new Error(`${path} is ${object.status}`);
    }
  }
}

export const SCENARIOS: Readonly<Record<string, Prepare>> = {
  'create-volume': async (place) => ({
    act: () => place.ask('POST', '/volumes', { volume: { snapshot_id: place.stock.snapshot, size: 2 } }),
    hasHappened: ({ id }) => place.is(`/volumes/${id}`, { status: 'available', size: 2 }),
  }),
  'delete-volume': async (place) => {
    const { id } = await place.volume();
    const snapshot = await place.snapshot(id);
    return {
      act: () => place.ask('DELETE', `/volumes/${id}?cascade=true`),
      hasHappened: async () =>
        (await place.isGone(`/volumes/${id}`)) && (await place.isGone(`/snapshots/${snapshot.id}`)),
    };
  },
  'extend-volume': async (place) => {
    const { id } = await place.volume();
    return {
      act: () => place.act(id, { 'os-extend': { new_size: 3 } }),
      hasHappened: () => place.is(`/volumes/${id}`, { status: 'available', size: 3 }),
    };
  },
  'retype-volume': async (place) => {
    const { id } = await place.volume();
    return {
      act: () => place.act(id, { 'os-retype': { new_type: 'other', migration_policy: 'never' } }),
      hasHappened: () => place.is(`/volumes/${id}`, { status: 'available', volume_type: 'other' }),
    };
  },
  'revert-volume': async (place) => {
    const { id } = await place.volume();
    const snapshot = await place.snapshot(id);
    await place.write(id);
    const path = `/quarry/volumes/${id}/diff?from=${snapshot.id}`;
    return {
      act: () => place.act(id, { revert: { snapshot_id: snapshot.id } }),
      hasHappened: async () => (await place.ask('GET', path)).body.ranges.length === 0,
    };
  },
  'create-snapshot': async (place) => {
    const { id } = await place.volume();
    return {
      act: () => place.ask('POST', '/snapshots', { snapshot: { volume_id: id } }),
      hasHappened: (made) => place.is(`/snapshots/${made.id}`, { status: 'available' }),
    };
  },
  'delete-snapshot': async (place) => {
    const { id } = await place.snapshot((await place.volume()).id);
    return {
      act: () => place.ask('DELETE', `/snapshots/${id}`),
      hasHappened: () => place.isGone(`/snapshots/${id}`),
    };
  },
  'create-group': async (place) => {
    const source = await place.group();
    return {
      act: () => place.ask('POST', '/groups/action', { 'create-from-src': { source_group_id: source } }),
      hasHappened: ({ id }) => place.is(`/groups/${id}`, { status: 'available' }),
    };
  },
  'delete-group': async (place) => {
    const id = await place.group();
    return {
      act: () => place.ask('POST', `/groups/${id}/action`, { delete: { 'delete-volumes': true } }),
      hasHappened: () => place.isGone(`/groups/${id}`),
    };
  },
  'create-group-snapshot': async (place) => {
    const group = await place.group();
    return {
      act: () => place.ask('POST', '/group_snapshots', { group_snapshot: { group_id: group } }),
      hasHappened: ({ id }) => place.is(`/group_snapshots/${id}`, { status: 'available' }),
    };
  },
  'delete-group-snapshot': async (place) => {
    const { id } = await place.make('/group_snapshots', { group_snapshot: { group_id: await place.group() } });
    return {
      act: () => place.ask('DELETE', `/group_snapshots/${id}`),
      hasHappened: () => place.isGone(`/group_snapshots/${id}`),
    };
  },
  'create-backup': async (place) => {
    const { id } = await place.volume();
    return {
      act: () => place.ask('POST', '/backups', { backup: { volume_id: id } }),
      hasHappened: (made) => place.is(`/backups/${made.id}`, { status: 'available' }),
    };
  },
  'delete-backup': async (place) => {
    const volume = await place.volume();
    const { id } = await place.make('/backups', { backup: { volume_id: volume.id } });
    return { act: () => place.ask('DELETE', `/backups/${id}`), hasHappened: () => place.isGone(`/backups/${id}`) };
  },
  'restore-backup': async (place) => {
    const { restorable } = place.stock;
    return {
      act: () => place.ask('POST', `/backups/${restorable}/restore`, { restore: {} }),
      hasHappened: ({ volume_id }) => place.is(`/volumes/${volume_id}`, { status: 'available' }),
    };
  },
  'restore-instant': async (place) => {
    const volume = await place.volume();
    const { id } = await place.make('/backups', { backup: { volume_id: volume.id } });
    return {
      act: () => place.ask('POST', `/quarry/backups/${id}/restore`, { restore: { instant: true } }),
      hasHappened: ({ volume_id }) => place.is(`/volumes/${volume_id}`, { status: 'available' }),
    };
  },
  'verify-backup': async (place) => {
    const { verifiable } = place.stock;
    const path = `/quarry/backups/${verifiable}`;
    const before = (await place.ask('GET', path)).body.backup.verified?.ended_at;
    return {
      act: () => place.ask('POST', `${path}/verify`, { depth: 'full' }),
      hasHappened: async () => {
        const { verified } = (await place.ask('GET', path)).body.backup;
        return verified?.outcome === 'good' && verified.ended_at !== before;
      },
    };
  },
};
