/**
 * The servers that are measured: how each is prepared and started in its own folder, and how it takes a snapshot. Every
 * one serves its volumes through the page cache, on a unix socket or as the place says; what it is compared by is not known here.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Client } from 'undici';
import type { Transport } from './jobs.ts';

export type Place = {
  readonly folder: string;
  /** Where the server listens unless `tcp` says otherwise. */
  readonly socket: string;
  /** On this machine; `certificates`: under TLS, by what is in this folder. */
  readonly tcp: { readonly port: number; readonly certificates: string | null } | null;
  readonly sizeMib: number;
  readonly volumes: number;
};

export type Peer = {
  readonly name: string;
  /** The program that must be on PATH. */
  readonly program: string;
  readonly prepare: (place: Place) => void;
  readonly argv: (place: Place) => readonly string[];
  /** Where a server that goes to the background leaves its process id; null: it stays in the foreground. */
  readonly pidFile: ((place: Place) => string) | null;
  /** Creates the volume of this index where that takes a running server, and returns the NBD URI. */
  readonly uri: (place: Place, index: number) => Promise<string>;
  readonly transports: readonly Transport[];
  /** How many volumes one process of it serves. */
  readonly volumesMax: number;
  /** Whether a snapshot of the first volume is taken while the server runs (ours) or needs it stopped; null: it has none. */
  readonly snapshot: {
    readonly isOnline: boolean;
    /** More would take longer than anybody waits. */
    readonly most: number;
    readonly take: (place: Place) => Promise<void>;
  } | null;
};

const ROOT = join(import.meta.dirname, '..', '..');
const GIB_IN_MIB = 1024;

export function isInstalled(program: string): boolean {
  if (program.includes('/')) return existsSync(program);
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function uriOf({ socket, tcp }: Place, name: string): string {
  if (tcp === null) return `nbd+unix:///${name}?socket=${socket}`;
  if (tcp.certificates === null) return `nbd://localhost:${tcp.port}/${name}`;
  // fio lets no address name files, so its client cannot be told whom to trust. What is measured comes after that.
  return `nbds://localhost:${tcp.port}/${name}?tls-verify-peer=false`;
}

function plainUri(place: Place, index: number): Promise<string> {
  return Promise.resolve(uriOf(place, `v${index}`));
}

const indices = ({ volumes }: Place) => Array.from({ length: volumes }, (_, index) => index);

function rawFiles(place: Place): void {
  for (const index of indices(place))
    execFileSync('truncate', ['-s', `${place.sizeMib}M`, join(place.folder, `v${index}`)]);
}

function qcow2Files(place: Place): void {
  for (const index of indices(place)) {
    const path = join(place.folder, `v${index}`);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, `${place.sizeMib}M`]);
  }
}

const qcow2Snapshot: Peer['snapshot'] = {
  isOnline: false,
  most: 100,
  take: async ({ folder }) => {
    execFileSync('qemu-img', ['snapshot', '-c', 's1', join(folder, 'v0')]);
  },
};

function qemuNbd(format: 'raw' | 'qcow2'): Peer {
  return {
    name: `qemu-nbd ${format}`,
    program: 'qemu-nbd',
    prepare: format === 'raw' ? rawFiles : qcow2Files,
    argv: ({ folder, socket, tcp }) => [
      ...['qemu-nbd', '-t', '-x', 'v0', '-e', '32', '-f', format],
      ...(tcp === null ? ['-k', socket] : ['-b', 'localhost', '-p', String(tcp.port)]),
      ...(tcp?.certificates
        ? ['--object', `tls-creds-x509,id=t,endpoint=server,verify-peer=no,dir=${tcp.certificates}`, '--tls-creds', 't']
        : []),
      ...['--cache=writeback', '--aio=io_uring', '--discard=unmap', join(folder, 'v0')],
    ],
    pidFile: null,
    uri: plainUri,
    transports: format === 'raw' ? ['unix', 'tcp', 'tls'] : ['unix'],
    volumesMax: 1,
    snapshot: format === 'raw' ? null : qcow2Snapshot,
  };
}

const storageDaemon: Peer = {
  name: 'qemu-storage-daemon qcow2',
  program: 'qemu-storage-daemon',
  prepare: qcow2Files,
  argv: (place) => [
    'qemu-storage-daemon',
    ...['--nbd-server', `addr.type=unix,addr.path=${place.socket},max-connections=32`],
    ...indices(place).flatMap((index) => {
      const file = join(place.folder, `v${index}`);
      return [
        ...['--blockdev', `driver=file,node-name=f${index},filename=${file},aio=io_uring,cache.direct=off`],
        ...['--blockdev', `driver=qcow2,node-name=v${index},file=f${index},discard=unmap`],
        ...['--export', `type=nbd,id=e${index},node-name=v${index},name=v${index},writable=on`],
      ];
    }),
  ],
  pidFile: null,
  uri: plainUri,
  transports: ['unix'],
  volumesMax: 8,
  snapshot: qcow2Snapshot,
};

const nbdServer: Peer = {
  name: 'nbd-server',
  program: 'nbd-server',
  prepare: (place) => {
    rawFiles(place);
    const generic = `[generic]\nunixsock=${place.socket}\nallowlist=true\nmax_threads=4\n`;
    const volumes = indices(place).map(
      (index) => `[v${index}]\nexportname=${join(place.folder, `v${index}`)}\nflush=true\nfua=true\ntrim=true\n`,
    );
    writeFileSync(join(place.folder, 'nbd.conf'), generic + volumes.join(''));
  },
  // In the foreground (-d) it ends with its first connection.
  argv: ({ folder }) => ['nbd-server', '-C', join(folder, 'nbd.conf'), '-p', join(folder, 'pid')],
  pidFile: ({ folder }) => join(folder, 'pid'),
  uri: plainUri,
  transports: ['unix'],
  volumesMax: 8,
  snapshot: null,
};

function nbdkit(kind: 'memory' | 'file'): Peer {
  return {
    name: `nbdkit ${kind}`,
    program: 'nbdkit',
    prepare: (place) => {
      if (kind === 'memory') return;
      mkdirSync(join(place.folder, 'volumes'));
      rawFiles({ ...place, folder: join(place.folder, 'volumes') });
    },
    argv: ({ folder, socket, sizeMib, tcp }) => [
      ...['nbdkit', '-f', ...(tcp === null ? ['-U', socket] : ['-i', 'localhost', '-p', String(tcp.port)])],
      ...(tcp?.certificates ? ['--tls=require', `--tls-certificates=${tcp.certificates}`] : []),
      kind,
      // By default a folder's files are served whatever name was asked for; a single file or memory serves any name.
      ...(kind === 'file' ? [`dir=${join(folder, 'volumes')}`] : [`${sizeMib}M`]),
    ],
    pidFile: null,
    uri: plainUri,
    transports: kind === 'file' ? ['unix', 'tcp', 'tls'] : ['unix'],
    volumesMax: kind === 'file' ? 8 : 1,
    snapshot: null,
  };
}

// ---- ourselves -----------------------------------------------------------------------------------------------------

const apiSocket = ({ folder }: Place) => join(folder, 'api.sock');

/** One request of the API; the answer's object under `key`. */
async function api(place: Place, method: 'GET' | 'POST', path: string, key: string, body?: unknown): Promise<unknown> {
  const client = new Client('http://localhost', { socketPath: apiSocket(place) });
  try {
    const reply = await client.request({
      ...{ method, path, headers: { 'content-type': 'application/json' } },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await reply.body.text();
    if (reply.statusCode >= 400) throw new Error(`${method} ${path}: ${reply.statusCode} ${text}`);
    return Reflect.get(JSON.parse(text), key);
  } finally {
    await client.destroy();
  }
}

function field(value: unknown, key: string): string {
  const found: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
  if (typeof found !== 'string') throw new Error(`the answer has no ${key}: ${JSON.stringify(value)}`);
  return found;
}

async function available(place: Place, path: string, key: string): Promise<void> {
  for (;;) {
    const status = field(await api(place, 'GET', path, key), 'status');
    if (status === 'available') return;
    if (status.startsWith('error')) throw new Error(`${path} went to ${status}`);
  }
}

async function volumeId(place: Place, index: number): Promise<string> {
  const name = `v${index}`;
  const volumes = await api(place, 'GET', `/v3/volumes?name=${name}`, 'volumes');
  if (Array.isArray(volumes) && volumes.length > 0) return field(volumes[0], 'id');
  const size = Math.ceil(place.sizeMib / GIB_IN_MIB);
  const id = field(await api(place, 'POST', '/v3/volumes', 'volume', { volume: { name, size } }), 'id');
  await available(place, `/v3/volumes/${id}`, 'volume');
  return id;
}

function tlsOptions(certificates: string): string[] {
  const file = (name: string) => join(certificates, `server-${name}.pem`);
  return ['--nbd-tls', 'require', '--nbd-tls-cert', file('cert'), '--nbd-tls-key', file('key')];
}

const quarry: Peer = {
  name: 'quarry',
  program: join(ROOT, 'dist', 'cli', 'main.js'),
  prepare: () => {},
  argv: (place) => [
    ...[process.execPath, join(ROOT, 'dist', 'cli', 'main.js'), 'serve', '--data', join(place.folder, 'data')],
    ...['--api', `unix:${apiSocket(place)}`, '--log-level', 'warn'],
    ...['--nbd', place.tcp === null ? `unix:${place.socket}` : `localhost:${place.tcp.port}`],
    ...(place.tcp?.certificates ? tlsOptions(place.tcp.certificates) : []),
  ],
  pidFile: null,
  uri: async (place, index) => uriOf(place, await volumeId(place, index)),
  transports: ['unix', 'tcp', 'tls'],
  volumesMax: 8,
  snapshot: {
    isOnline: true,
    most: Number.POSITIVE_INFINITY,
    take: async (place) => {
      const snapshot = { volume_id: await volumeId(place, 0), name: 's1', force: true };
      const id = field(await api(place, 'POST', '/v3/snapshots', 'snapshot', { snapshot }), 'id');
      await available(place, `/v3/snapshots/${id}`, 'snapshot');
    },
  },
};

/** About the least that such a server can do; see bench/limit. `npm run bench` builds it. */
export const LIMIT: Peer = {
  name: 'limit',
  program: join(ROOT, 'native', 'target', 'release', 'examples', 'limit'),
  prepare: () => {},
  argv: ({ folder, socket, sizeMib }) => [LIMIT.program, socket, join(folder, 'v0'), String(sizeMib * 2 ** 20)],
  pidFile: null,
  uri: plainUri,
  transports: ['unix'],
  volumesMax: 1,
  snapshot: null,
};

/** Ourselves first. */
export const PEERS: readonly Peer[] = [
  quarry,
  LIMIT,
  nbdkit('memory'),
  nbdkit('file'),
  qemuNbd('raw'),
  qemuNbd('qcow2'),
  storageDaemon,
  nbdServer,
];
