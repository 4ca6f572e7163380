/** The API over a world, asked by injected requests: no socket. */
import { buildServer, type Server, type ServerOptions } from '../../src/api/server.ts';
import { World, type WorldOptions } from '../control/world.ts';

export type Reply = {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is compared field by field, which is its check
  readonly body: any;
};

export type Ask = { readonly body?: unknown; readonly minor?: number; readonly headers?: Record<string, string> };

export type ApiOptions = WorldOptions & { readonly server?: Partial<ServerOptions> };

export class Api implements AsyncDisposable {
  readonly world: World;
  readonly server: Server;

  private constructor(world: World, options: Partial<ServerOptions>) {
    this.world = world;
    this.server = buildServer(world.control, { publicEndpoint: null, ...options });
  }

  static async open({ server = {}, ...options }: ApiOptions = {}): Promise<Api> {
    return new Api(await World.open(options), server);
  }

  async ask(method: string, url: string, { body, minor, headers }: Ask = {}): Promise<Reply> {
    const reply = await this.server.inject({
      method: method as 'GET',
      url,
      headers: {
        ...(minor !== undefined && { 'openstack-api-version': `volume 3.${minor}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const isJson = String(reply.headers['content-type'] ?? '').startsWith('application/json');
    return { status: reply.statusCode, headers: reply.headers, body: isJson ? reply.json() : reply.body };
  }

  /** Waits until no task is under way and limits are what they should be. */
  async settle(): Promise<void> {
    await this.world.control.tasks.idle();
    await this.world.control.limits.idle();
  }

  async createVolume(fields: Record<string, unknown> = {}): Promise<string> {
    const { status, body } = await this.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...fields } } });
    if (status !== 202) throw new Error(`${status}: ${JSON.stringify(body)}`);
    await this.settle();
    return body.volume.id;
  }

  async createSnapshot(volumeId: string, fields: Record<string, unknown> = {}): Promise<string> {
    const payload = { body: { snapshot: { volume_id: volumeId, ...fields } } };
    const { status, body } = await this.ask('POST', '/v3/snapshots', payload);
    if (status !== 202) throw new Error(`${status}: ${JSON.stringify(body)}`);
    await this.settle();
    return body.snapshot.id;
  }

  async act(id: string, body: Record<string, unknown>, minor?: number): Promise<Reply> {
    const reply = await this.ask('POST', `/v3/volumes/${id}/action`, { body, ...(minor !== undefined && { minor }) });
    await this.settle();
    return reply;
  }

  async status(id: string): Promise<string | number> {
    const { status, body } = await this.ask('GET', `/v3/volumes/${id}`);
    return status === 200 ? body.volume.status : status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    await this.world[Symbol.asyncDispose]();
  }
}
