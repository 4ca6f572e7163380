/**
 * A real S3 server for a test: started on a free port with a folder, keys and a bucket of its own, ended by its process
 * id. Two tests may run at once.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import type { S3Options } from '../../src/objects/s3.ts';
import { peerPath } from './peers.ts';
import { tempFolder } from './temp.ts';

export const S3_SERVERS = ['versitygw', 'minio'] as const;
export type S3ServerName = (typeof S3_SERVERS)[number];

const ACCESS_KEY = 'testaccess';
const SECRET_KEY = 'testsecret123';
const REGION = 'us-east-1';
/** Another process may take a port between its choice and its use. */
const START_TRIES = 3;

export type S3Server = AsyncDisposable & {
  readonly endpoint: string;
  readonly folder: string;
  readonly options: S3Options;
};

export async function startS3(name: S3ServerName): Promise<S3Server> {
  const temp = await tempFolder();
  const data = join(temp.path, 'data');
  await mkdir(data);
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const child = launch(name, port, { data, folder: temp.path });
    const endpoint = `http://127.0.0.1:${port}`;
    const stop = async () => {
      if (child.exitCode === null && child.signalCode === null) {
        const gone = once(child, 'exit');
        child.kill('SIGKILL');
        await gone;
      }
    };
    if (await isUp(child, port)) {
      const options = { ...OPTIONS, endpoint };
      await makeBucket(options);
      return {
        endpoint,
        folder: data,
        options,
        async [Symbol.asyncDispose]() {
          await stop();
          await temp.remove();
        },
      };
    }
    await stop();
    if (attempt === START_TRIES) throw new Error(`${name} does not start`);
  }
}

const OPTIONS: S3Options = {
  bucket: 'tests',
  prefix: 'some/where',
  endpoint: null,
  region: REGION,
  pathStyle: true,
  caFile: null,
  checksums: 'supported',
  credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
};

function launch(name: S3ServerName, port: number, { data, folder }: { data: string; folder: string }): ChildProcess {
  const program = peerPath(name);
  if (program === null) throw new Error(`${name} is missing`);
  const address = `127.0.0.1:${port}`;
  const [args, env] =
    name === 'versitygw'
      ? [['--port', address, 'posix', data], { ROOT_ACCESS_KEY: ACCESS_KEY, ROOT_SECRET_KEY: SECRET_KEY }]
      : [
          ['server', '--quiet', '--address', address, data],
          { MINIO_ROOT_USER: ACCESS_KEY, MINIO_ROOT_PASSWORD: SECRET_KEY, MINIO_BROWSER: 'off', HOME: folder },
        ];
  return spawn(program, args, { env: { ...process.env, ...env }, cwd: folder, stdio: 'ignore' });
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** True when it accepts connections, false when it has ended. */
async function isUp(child: ChildProcess, port: number): Promise<boolean> {
  while (child.exitCode === null && child.signalCode === null) {
    const socket = connect(port, '127.0.0.1');
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** A server may accept connections before it is ready; the SDK repeats what is answered with 503. */
async function makeBucket({ endpoint, bucket, credentials }: S3Options): Promise<void> {
  if (endpoint === null || credentials === null) throw new Error('a server of our own has both');
  const client = new S3Client({ endpoint, region: REGION, forcePathStyle: true, credentials, maxAttempts: 10 });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
}
