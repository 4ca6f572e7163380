/**
 * What every npm script runs first: makes a bare clone runnable (packages, the Rust addon, the compiled TypeScript) and
 * then starts what was asked. Plain JavaScript without dependencies, because it runs before there are any. It prints
 * nothing on standard output of its own, so that what it starts owns that. A fresh tree is recognised by the hashes of
 * its sources and costs a few tens of milliseconds.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
export const CACHE = join(ROOT, '.cache');
const ADDON = join(ROOT, 'native', 'quarry.node');
const BINDING_TYPES = join(ROOT, 'src', 'native', 'binding.d.ts');
const MAIN = join(ROOT, 'dist', 'cli', 'main.js');

/** The oldest Node that the dependencies run on; package.json says the same in `engines`. */
const NODE_MIN = [20, 19];

// ---- small pieces ----------------------------------------------------------------------------------------------

export function say(text) {
  process.stderr.write(`quarry: ${text}\n`);
}

export class StepFailed extends Error {}

/** Runs a command in the checkout. `quiet` keeps its output back unless it fails; else it goes to standard error. */
export function command(program, args, { quiet = false, showFailure = true, env = process.env, stdout = 2 } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: ROOT,
      env,
      stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['inherit', stdout, 2],
    });
    const output = [];
    child.stdout?.on('data', (chunk) => output.push(chunk));
    child.stderr?.on('data', (chunk) => output.push(chunk));
    child.on('error', (error) => {
      const reason = error.code === 'ENOENT' ? `${program} is not installed or not on PATH` : error.message;
      reject(new StepFailed(reason));
    });
    child.on('close', (code, signal) => {
      if (quiet && showFailure && code !== 0) process.stderr.write(Buffer.concat(output));
      resolve({ code: code ?? 128, signal });
    });
  });
}

export async function must(program, args, options) {
  const { code } = await command(program, args, options);
  if (code !== 0)
    throw new StepFailed(`\`${[program.replace(`${ROOT}/`, ''), ...args].join(' ')}\` failed with exit code ${code}`);
}

function filesUnder(folder, wanted, found = []) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'target' && entry.name !== 'node_modules') filesUnder(path, wanted, found);
    } else if (wanted(entry.name)) found.push(path);
  }
  return found;
}

function digestOf(paths) {
  const hash = createHash('sha256');
  for (const path of [...paths].sort())
    hash
      .update(`${relative(ROOT, path)}\0`)
      .update(readFileSync(path))
      .update('\0');
  return hash.digest('hex');
}

function stampOf(name) {
  try {
    return readFileSync(join(CACHE, `${name}.stamp`), 'utf8');
  } catch {
    return null;
  }
}

function setStamp(name, digest) {
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(join(CACHE, `${name}.stamp`), digest);
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/**
 * Two makers of one thing in one checkout would write the same files: the second waits, and then finds it made. A lock
 * whose process is gone is taken over.
 */
export async function locked(what, work) {
  mkdirSync(CACHE, { recursive: true });
  const path = join(CACHE, `${what}.lock`);
  let told = false;
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    let owner = Number.NaN;
    try {
      owner = Number(readFileSync(path, 'utf8'));
    } catch {
      continue;
    }
    if (owner > 0 && !isAlive(owner)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) say(`waiting for another run that makes the same (${what}, process ${owner})`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const release = () => rmSync(path, { force: true });
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.removeListener('exit', release);
    release();
  }
}

// ---- the steps ---------------------------------------------------------------------------------------------------

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    throw new StepFailed(`Node ${process.versions.node} is too old: ${NODE_MIN.join('.')} or newer is needed`);
  }
}

function packagesAreFresh() {
  const lock = join(ROOT, 'package-lock.json');
  const installed = join(ROOT, 'node_modules', '.package-lock.json');
  const stamp = join(ROOT, 'node_modules', '.quarry-stamp');
  if (!existsSync(installed)) return { fresh: false, stamp, digest: '' };
  // Native packages are built for one ABI: another Node needs them again.
  const digest = `${digestOf([lock])} ${process.versions.modules}`;
  const seen = existsSync(stamp) ? readFileSync(stamp, 'utf8') : null;
  if (seen === digest) return { fresh: true, stamp, digest };
  const sameNode = seen === null || seen.endsWith(` ${process.versions.modules}`);
  // `npm install` by hand leaves no stamp of ours, but what it wrote is newer than the lockfile.
  if (sameNode && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) {
    writeFileSync(stamp, digest);
    return { fresh: true, stamp, digest };
  }
  return { fresh: false, stamp, digest };
}

async function installPackages() {
  if (packagesAreFresh().fresh) return;
  say('installing packages (the first time takes a minute or two: some are compiled)');
  const flags = ['--no-fund', '--no-audit', '--loglevel=error'];
  // A lockfile written where the registry lacks other platforms' optional packages does not name those, and `npm ci`
  // refuses it everywhere. `npm install --no-save` takes the versions that it does name, and leaves it as it is.
  const strict = await command('npm', ['ci', ...flags], { quiet: true, showFailure: false });
  if (strict.code !== 0) await must('npm', ['install', '--no-save', ...flags], { quiet: true });
  packagesAreFresh();
}

/** The addon and the types of its surface, by napi-rs. Built aside and moved, because a running daemon may have the old one mapped. */
async function buildNative() {
  const digest = digestOf(filesUnder(join(ROOT, 'native'), (name) => /\.(rs|toml|lock)$/.test(name)));
  if (stampOf('native') === digest && existsSync(ADDON) && existsSync(BINDING_TYPES)) return;
  say('building the data plane (cargo build --release; the first time takes a minute or two)');
  const out = join(CACHE, 'native');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const cli = join(ROOT, 'node_modules', '@napi-rs', 'cli', 'dist', 'cli.js');
  const args = [
    'build',
    '--release',
    '--no-js',
    '--manifest-path',
    'native/addon/Cargo.toml',
    '--config-path',
    'native/napi.json',
  ];
  await must(process.execPath, [cli, ...args, '--output-dir', '.cache/native', '--dts', 'binding.d.ts'], {
    quiet: true,
  });
  const types = join(out, 'binding.d.ts');
  // An addon without exports yields an empty file, which TypeScript takes for no module.
  const written = existsSync(types) ? readFileSync(types) : Buffer.alloc(0);
  const text = written.length > 0 ? written : Buffer.from('export {};\n');
  if (!existsSync(BINDING_TYPES) || !readFileSync(BINDING_TYPES).equals(text)) writeFileSync(BINDING_TYPES, text);
  renameSync(join(out, 'quarry.node'), ADDON);
  setStamp('native', digest);
}

/** Modules whose source is gone must not be found by a later import. */
function removeOrphans() {
  const dist = join(ROOT, 'dist');
  for (const path of filesUnder(dist, (name) => /\.js(\.map)?$/.test(name))) {
    const source = join(ROOT, 'src', relative(dist, path)).replace(/\.js(\.map)?$/, '.ts');
    if (!existsSync(source)) rmSync(path);
  }
}

async function buildTypeScript() {
  const sources = filesUnder(join(ROOT, 'src'), (name) => name.endsWith('.ts'));
  const digest = digestOf([...sources, join(ROOT, 'tsconfig.json'), join(ROOT, 'package-lock.json')]);
  if (stampOf('typescript') === digest && existsSync(MAIN)) return;
  say('compiling TypeScript');
  await must(process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json']);
  removeOrphans();
  if (existsSync(MAIN)) chmodSync(MAIN, 0o755);
  setStamp('typescript', digest);
}

/** `what`: `all`, or `native` or `typescript` alone. */
export async function build(what = 'all') {
  checkNode();
  const steps = { all: [buildNative, buildTypeScript], native: [buildNative], typescript: [buildTypeScript] }[what];
  if (!steps) throw new StepFailed(`nothing is called \`${what}\` to build: all, native or typescript`);
  await locked('bootstrap', async () => {
    await installPackages();
    for (const step of steps) await step();
  });
}

/** A TypeScript program of the repository (bench, tools): run through vite, since Node 20 cannot read TypeScript. */
async function runTypeScript(path, args) {
  const { runnerImport } = await import(
    pathToFileURL(join(ROOT, 'node_modules', 'vite', 'dist', 'node', 'index.js')).href
  );
  const { module } = await runnerImport(join(ROOT, path), { root: ROOT, configFile: false, logLevel: 'error' });
  return await module.main(args);
}

async function installHooks() {
  const { execFileSync } = await import('node:child_process');
  const folder = execFileSync('git', ['rev-parse', '--git-path', 'hooks'], { cwd: ROOT, encoding: 'utf8' }).trim();
  mkdirSync(join(ROOT, folder), { recursive: true });
  const target = join(ROOT, folder, 'pre-commit');
  copyFileSync(join(ROOT, 'tools', 'hooks', 'pre-commit'), target);
  chmodSync(target, 0o755);
  say(`installed ${relative(ROOT, target)}: format and lint of staged files`);
}

// ---- what npm scripts call ------------------------------------------------------------------------------------------

async function main([verb = 'build', ...args]) {
  switch (verb) {
    case 'build':
      await build(args[0]);
      return 0;
    case 'cli': {
      // The compiled program takes over this process: no second one stands between it and its signals.
      await build();
      process.argv = [process.execPath, MAIN, ...args];
      await import(pathToFileURL(MAIN).href);
      return null;
    }
    case 'start': {
      await build();
      const start = await import(pathToFileURL(join(ROOT, 'dist', 'cli', 'start.js')).href);
      return await start.main(args);
    }
    case 'test':
    case 'check':
    case 'soak': {
      await build();
      const tests = await import('./test.mjs');
      return await tests[verb](args);
    }
    case 'bench':
      await build();
      return await runTypeScript('bench/run.ts', args);
    case 'run':
      await build();
      return await runTypeScript(args[0], args.slice(1));
    case 'hooks':
      await installHooks();
      return 0;
    default:
      throw new StepFailed(`unknown verb \`${verb}\`: build, cli, start, test, check, soak, bench, run or hooks`);
  }
}

if (process.argv[1] && pathToFileURL(process.argv[1]).href === import.meta.url) {
  main(process.argv.slice(2)).then(
    (code) => {
      if (typeof code === 'number') process.exitCode = code;
    },
    (error) => {
      process.stderr.write(`quarry: ${error instanceof StepFailed ? error.message : error.stack}\n`);
      process.exitCode = 1;
    },
  );
}
