/**
 * `npm start`: the daemon on its defaults, with a first volume and a page that says how to attach it. For people who want
 * to see it work; `quarry serve` is what machines run.
 */
import { Command } from 'commander';
import { runServe, type ServeFlags } from '../daemon/main.ts';
import { ApiClient } from './client.ts';
import { addServeOptions } from './commands/serve.ts';
import { createVolume, exportsOf, uriOf } from './commands/volume.ts';
import { trustedCertificates } from './connection.ts';
import type { Context } from './context.ts';
import { number, text } from './decode.ts';
import { reportError } from './failure.ts';
import { listAll } from './objects.ts';
import { Printer } from './print.ts';

const FIRST_VOLUME = { name: 'demo', size: 10 };

type Ready = { readonly api: readonly string[]; readonly data: string; readonly version: string };

async function ensureFirstVolume(context: Context): Promise<{ id: string; name: string; sizeGib: number }> {
  const { name, size } = FIRST_VOLUME;
  const [existing] = await listAll(context.client, 'volume', { name });
  if (existing !== undefined) return { id: text(existing, 'id'), name, sizeGib: number(existing, 'size') };
  return { id: await createVolume(context, { name, size }), name, sizeGib: size };
}

/** In single quotes for a shell: a URI holds `?` and a path may hold anything. */
function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}

/** As nbd-client wants it: a socket or a host, and the name apart. */
function nbdClientLine(uri: string): string {
  const url = new URL(uri);
  const name = decodeURIComponent(url.pathname.slice(1));
  const socket = url.searchParams.get('socket');
  const server = socket === null ? `${url.hostname} ${url.port || '10809'}` : `-unix ${quoted(socket)}`;
  return `sudo nbd-client ${server} /dev/nbd0 -N ${quoted(name)}`;
}

/** By name, which people can read; by id where another volume bears the name too. */
async function pageUri(context: Context, volume: { id: string; name: string }): Promise<string> {
  const exports = await exportsOf(context, 'volume', volume.id);
  const named = exports.find((item) => text(item, 'name') === volume.name);
  return named === undefined ? await uriOf(context, 'volume', volume.id) : text(named, 'uri');
}

async function printPage(ready: Ready, print: (line: string) => void): Promise<void> {
  const url = ready.api[0] ?? '';
  const client = new ApiClient({ url, token: null, certificates: trustedCertificates({}, process.env) });
  const printer = new Printer({ format: 'table', columns: [] });
  const context: Context = { client, printer, shouldWait: true, signal: new AbortController().signal };
  try {
    const volume = await ensureFirstVolume(context);
    const uri = await pageUri(context, volume);
    const isDefault = url === 'http://127.0.0.1:8776';
    const quarry = `tools/quarry${isDefault ? '' : ` --url ${quoted(url)}`}`;
    const api = url.startsWith('unix:') ? url : `${url}/v3`;
    const lines = [
      `Quarry ${ready.version} serves ${ready.data}`,
      '',
      `  volume      ${volume.name}, ${volume.sizeGib} GiB`,
      `  NBD URI     ${uri}`,
      `  qemu        qemu-system-x86_64 -m 2G -drive ${quoted(`file=${uri},format=raw,if=virtio`)}`,
      `  nbd-client  ${nbdClientLine(uri)}`,
      `  API         ${api}`,
      `  commands    ${quarry} volume list; ${quarry} --help`,
      '',
      'Ctrl-C stops it. Started again it serves what was there.',
    ];
    for (const line of lines) print(line);
  } finally {
    await client.close();
  }
}

export async function main(args: readonly string[]): Promise<never> {
  let code = 0;
  try {
    const flags = addServeOptions(new Command('npm start --')).parse(args, { from: 'user' }).opts<ServeFlags>();
    const print = (line: string) => {
      // The page is for people; the daemon serves on whether or not it could be made.
      printPage(JSON.parse(line), (text) => process.stdout.write(`${text}\n`)).catch(reportError);
    };
    await runServe({ logLevel: 'warn', ...flags }, { print });
  } catch (error) {
    code = reportError(error);
  }
  process.exit(code);
}
