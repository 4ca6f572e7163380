/**
 * The servers that are measured: how each is prepared and started in its own folder, and how it takes a snapshot. Every
 * one serves one volume on a unix socket through the page cache; what it is compared by is not known here.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Client } from 'undici';

export type Place = { readonly folder: string; readonly socket: string; readonly sizeMib: number };

export type Peer = {
  readonly name: string;
  /** The program that must be on PATH. */
  readonly program: string;
  readonly prepare: (place: Place) => void;
  readonly argv: (place: Place) => readonly string[];
  /** Where a server that goes to the background leaves its process id; null: it stays in the foreground. */
  readonly pidFile: ((place: Place) => string) | null;
  /** Creates the volume where that takes a running server, and returns the NBD URI. */
  readonly uri: (place: Place) => Promise<string>;
  /** Whether the snapshot is taken while the server runs (ours) or needs it stopped; null: it has none. */
  readonly snapshot: { readonly isOnline: boolean; readonly take: (place: Place) => Promise<void> } | null;
};

const ROOT = join(import.meta.dirname, '..', '..');
const GIB_IN_MIB = 1024;

export function isInstalled(program: string): boolean {
  if (program.includes('/')) return existsSync(program);
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function plainUri({ socket }: Place): Promise<string> {
  return Promise.resolve(`nbd+unix:///vol?socket=${socket}`);
}

function rawFile({ folder, sizeMib }: Place): void {
  execFileSync('truncate', ['-s', `${sizeMib}M`, join(folder, 'v.raw')]);
}

function qcow2File({ folder, sizeMib }: Place): void {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', join(folder, 'v.qcow2'), `${sizeMib}M`]);
}

const qcow2Snapshot: Peer['snapshot'] = {
  isOnline: false,
  take: async ({ folder }) => {
    execFileSync('qemu-img', ['snapshot', '-c', 's1', join(folder, 'v.qcow2')]);
  },
};

function qemuNbd(format: 'raw' | 'qcow2'): Peer {
  return {
    name: `qemu-nbd ${format}`,
    program: 'qemu-nbd',
    prepare: format === 'raw' ? rawFile : qcow2File,
    argv: ({ folder, socket }) => [
      ...['qemu-nbd', '-t', '-k', socket, '-x', 'vol', '-e', '32', '-f', format],
      ...['--cache=writeback', '--aio=io_uring', '--discard=unmap', join(folder, `v.${format}`)],
    ],
    pidFile: null,
    uri: plainUri,
    snapshot: format === 'raw' ? null : qcow2Snapshot,
  };
}

const storageDaemon: Peer = {
  name: 'qemu-storage-daemon qcow2',
  program: 'qemu-storage-daemon',
  prepare: qcow2File,
  argv: ({ folder, socket }) => [
    'qemu-storage-daemon',
    ...['--blockdev', `driver=file,node-name=f,filename=${join(folder, 'v.qcow2')},aio=io_uring,cache.direct=off`],
    ...['--blockdev', 'driver=qcow2,node-name=vol,file=f,discard=unmap'],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket},max-connections=32`],
    ...['--export', 'type=nbd,id=e,node-name=vol,name=vol,writable=on'],
  ],
  pidFile: null,
  uri: plainUri,
  snapshot: qcow2Snapshot,
};

const nbdServer: Peer = {
  name: 'nbd-server',
  program: 'nbd-server',
  prepare: (place) => {
    rawFile(place);
    const generic = `[generic]\nunixsock=${place.socket}\nallowlist=true\nmax_threads=4\n`;
    const volume = `[vol]\nexportname=${join(place.folder, 'v.raw')}\nflush=true\nfua=true\ntrim=true\n`;
    writeFileSync(join(place.folder, 'nbd.conf'), generic + volume);
  },
  // In the foreground (-d) it ends with its first connection.
  argv: ({ folder }) => ['nbd-server', '-C', join(folder, 'nbd.conf'), '-p', join(folder, 'pid')],
  pidFile: ({ folder }) => join(folder, 'pid'),
  uri: plainUri,
  snapshot: null,
};

function nbdkit(kind: 'memory' | 'file'): Peer {
  return {
    name: `nbdkit ${kind}`,
    program: 'nbdkit',
    prepare: kind === 'file' ? rawFile : () => {},
    argv: ({ folder, socket, sizeMib }) => [
      ...['nbdkit', '-f', '-U', socket, '-e', 'vol', kind],
      kind === 'file' ? join(folder, 'v.raw') : `${sizeMib}M`,
    ],
    pidFile: null,
    uri: plainUri,
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

async function volumeId(place: Place): Promise<string> {
  const volumes = await api(place, 'GET', '/v3/volumes?name=bench', 'volumes');
  if (Array.isArray(volumes) && volumes.length > 0) return field(volumes[0], 'id');
  const size = Math.ceil(place.sizeMib / GIB_IN_MIB);
  const id = field(await api(place, 'POST', '/v3/volumes', 'volume', { volume: { name: 'bench', size } }), 'id');
  await available(place, `/v3/volumes/${id}`, 'volume');
  return id;
}

const quarry: Peer = {
  name: 'quarry',
  program: join(ROOT, 'dist', 'cli', 'main.js'),
  prepare: () => {},
  argv: (place) => [
    ...[process.execPath, join(ROOT, 'dist', 'cli', 'main.js'), 'serve', '--data', join(place.folder, 'data')],
    ...['--api', `unix:${apiSocket(place)}`, '--nbd', `unix:${place.socket}`, '--log-level', 'warn'],
  ],
  pidFile: null,
  uri: async (place) => `nbd+unix:///${await volumeId(place)}?socket=${place.socket}`,
  snapshot: {
    isOnline: true,
    take: async (place) => {
      const snapshot = { volume_id: await volumeId(place), name: 's1', force: true };
      const id = field(await api(place, 'POST', '/v3/snapshots', 'snapshot', { snapshot }), 'id');
      await available(place, `/v3/snapshots/${id}`, 'snapshot');
    },
  },
};

/** Ourselves first. */
export const PEERS: readonly Peer[] = [
  quarry,
  nbdkit('memory'),
  nbdkit('file'),
  qemuNbd('raw'),
  qemuNbd('qcow2'),
  storageDaemon,
  nbdServer,
];
