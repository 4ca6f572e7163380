/**
 * Pinned Python environments of the clients that tests run: tools/python/NAME.txt becomes a virtual environment in
 * .cache/python, made once and found again by the digest of its pins. It knows nothing of what is run in them.
 * `node tools/python.mjs NAME` prints the folder.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CACHE, locked, must, ROOT, StepFailed, say } from './bootstrap.mjs';

/** What the pinned packages ask for. */
const PYTHON_MIN = [3, 11];
const PROBE = 'import ensurepip, sys, venv; print(sys.implementation.cache_tag, *sys.version_info[:2])';
const FOLDER = join(CACHE, 'python');

/** The first Python of PATH that is new enough and can make environments (Debian packs that apart, as python3-venv). */
function findPython() {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const program = join(folder, 'python3');
    if (!existsSync(program)) continue;
    const { status, stdout } = spawnSync(program, ['-c', PROBE], { encoding: 'utf8' });
    if (status !== 0) continue;
    const [tag = '', major, minor] = stdout.trim().split(' ');
    const isNewEnough = Number(major) === PYTHON_MIN[0] && Number(minor) >= PYTHON_MIN[1];
    if (isNewEnough) return { program, tag };
  }
  return null;
}

/** Why no environment can be made here; null if it can. */
export function missingPython() {
  return findPython() === null ? `python3 ${PYTHON_MIN.join('.')} or newer with venv` : null;
}

/** Environments of older pins only take room. */
function removeOthers(name, digest) {
  for (const entry of readdirSync(FOLDER)) {
    if (entry.startsWith(`${name}-`) && entry !== `${name}-${digest}`)
      rmSync(join(FOLDER, entry), { recursive: true, force: true });
  }
}

/** The folder of a ready environment, made first if need be: a minute or two, and the network. */
export async function pythonEnvironment(name) {
  const pins = join(ROOT, 'tools', 'python', `${name}.txt`);
  if (!existsSync(pins)) throw new StepFailed(`no Python environment is called \`${name}\`: there is no ${pins}`);
  const python = findPython();
  if (python === null) throw new StepFailed(`missing: ${missingPython()} (Debian package python3-venv)`);
  const hash = createHash('sha256').update(readFileSync(pins)).update(`\0${python.tag}\0${ROOT}`);
  const digest = hash.digest('hex').slice(0, 12);
  const folder = join(FOLDER, `${name}-${digest}`);
  const ready = join(folder, '.ready');
  if (existsSync(ready)) return folder;
  await locked(`python-${name}`, async () => {
    if (existsSync(ready)) return;
    say(`installing the Python packages of tools/python/${name}.txt (a minute or two)`);
    mkdirSync(FOLDER, { recursive: true });
    removeOthers(name, digest);
    rmSync(folder, { recursive: true, force: true });
    await must(python.program, ['-m', 'venv', folder], { quiet: true });
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input'];
    await must(join(folder, 'bin', 'python'), [...pip, '--requirement', pins], { quiet: true });
    writeFileSync(ready, '');
  });
  return folder;
}

if (process.argv[1] && pathToFileURL(process.argv[1]).href === import.meta.url) {
  pythonEnvironment(process.argv[2] ?? '').then(
    (folder) => process.stdout.write(`${folder}\n`),
    (error) => {
      process.stderr.write(`quarry: ${error instanceof StepFailed ? error.message : error.stack}\n`);
      process.exitCode = 1;
    },
  );
}
