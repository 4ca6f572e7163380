/**
 * The test runner behind `npm test`, `npm run check` and `npm run soak`: installs the peers that the tests talk to, runs
 * the checks, cargo and vitest, and adds their counts up. It knows how each of those reports, and nothing of what they test.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { command, ROOT } from './bootstrap.mjs';

const PEERS = JSON.parse(readFileSync(join(ROOT, 'tools', 'peers.json'), 'utf8'));
const BIN = join(ROOT, 'node_modules', '.bin');
const REPORT = join(ROOT, '.cache', 'vitest.json');
/** Debian keeps some peers where an ordinary user's PATH does not look. */
const SEARCHED = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin'];
/** Where peers that are built here are kept. */
const BUILT = join(ROOT, '.cache', 'bin');

/** Vitest projects (folders of test/) that need no peer, no daemon and no long time: the fast loop. */
const FAST = ['base', 'format', 'journal', 'engine', 'model', 'catalog', 'control', 'api', 'contract', 'tidy', 'docs'];
/** Those whose runs depend on a seed, so that running them again finds new things. */
const SEEDED = ['model', 'engine', 'crash'];
const SOAK_SECONDS = 600;
/** Of each pass of a soak: the fuzzer of the NBD server. */
const FUZZ_SECONDS = 60;

// ---- peers -------------------------------------------------------------------------------------------------------

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function missingPeers() {
  return PEERS.filter((peer) => ![...SEARCHED, BUILT].some((folder) => isExecutable(join(folder, peer.command))));
}

/** One after the other: each build takes a minute or two and all cores. */
async function buildPeers() {
  const env = { ...process.env, GOBIN: BUILT };
  for (const { command: name, module } of missingPeers()) {
    if (module === undefined) continue;
    process.stderr.write(`quarry: building the peer ${name} from ${module}\n`);
    try {
      await command('go', ['install', module], { quiet: true, env });
    } catch (error) {
      process.stderr.write(`quarry: ${error.message}\n`);
    }
  }
}

async function installPeers() {
  await buildPeers();
  const wanted = [...new Set(missingPeers().flatMap((peer) => peer.package ?? []))];
  const canInstall = process.getuid?.() === 0 && SEARCHED.some((folder) => isExecutable(join(folder, 'apt-get')));
  if (wanted.length > 0 && canInstall) {
    process.stderr.write(`quarry: installing the peers that tests talk to: ${wanted.join(', ')}\n`);
    // RUNLEVEL=1: a package's own service (nbd-server's) is not started.
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
    const apt = async (...args) => (await command('apt-get', ['-qq', '-y', ...args], { quiet: true, env })).code === 0;
    const install = (packages) => apt('install', '--no-install-recommends', ...packages);
    // The lists may be absent or old, and a package that can't be had must not take the others with it.
    if (!(await install(wanted))) {
      await apt('update');
      if (!(await install(wanted))) for (const name of wanted) await install([name]);
    }
  }
  for (const peer of missingPeers()) {
    process.stderr.write(
      `quarry: no ${peer.command} (${peer.package === undefined ? `Go module ${peer.module}` : `Debian package ${peer.package}`}): its tests ${process.env.CI === 'true' ? 'fail' : 'are skipped'}\n`,
    );
  }
}

// ---- what runs ---------------------------------------------------------------------------------------------------

function newTally() {
  return { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
}

async function verify(tally, title, program, args) {
  const startedAt = Date.now();
  let code;
  try {
    ({ code } = await command(program, args, { quiet: true }));
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    code = 127;
  }
  process.stdout.write(
    `${code === 0 ? 'ok  ' : 'FAIL'} ${title} (${((Date.now() - startedAt) / 1000).toFixed(1)} s)\n`,
  );
  if (code === 0) tally.passed += 1;
  else {
    tally.failed += 1;
    tally.failures.push(title);
  }
}

async function runChecks(tally) {
  await verify(tally, 'format and lint: biome', join(BIN, 'biome'), [
    'check',
    '--colors=off',
    '--diagnostic-level=warn',
    '--error-on-warnings',
    '.',
  ]);
  await verify(tally, 'types: tsc', join(BIN, 'tsc'), ['--noEmit', '-p', 'tsconfig.test.json']);
  await verify(tally, 'format: rustfmt', 'cargo', ['fmt', '--manifest-path', 'native/Cargo.toml', '--all', '--check']);
  await verify(tally, 'lint: clippy', 'cargo', [
    ...[
      'clippy',
      '--quiet',
      '--manifest-path',
      'native/Cargo.toml',
      '--workspace',
      '--all-targets',
      '--',
      '-D',
      'warnings',
    ],
  ]);
  if (existsSync(join(ROOT, 'tools', 'docs.ts'))) {
    await verify(tally, 'generated pages: docs', process.execPath, [
      join(ROOT, 'tools', 'bootstrap.mjs'),
      'run',
      'tools/docs.ts',
      '--check',
    ]);
  }
}

/** cargo prints one `test result:` line per test program. */
async function runCargo(tally, args, env = process.env) {
  const child = spawn(
    'cargo',
    ['test', '--manifest-path', 'native/Cargo.toml', '--workspace', '--no-fail-fast', ...args],
    {
      cwd: ROOT,
      env,
      stdio: ['ignore', 'pipe', 2],
    },
  );
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
    process.stdout.write(chunk);
  });
  const code = await new Promise((resolve) => {
    child.on('error', () => resolve(127));
    child.on('close', (status) => resolve(status ?? 128));
  });
  let failed = 0;
  for (const [, passed, failures, ignored] of text.matchAll(
    /^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored;/gm,
  )) {
    tally.passed += Number(passed);
    failed += Number(failures);
    tally.skipped += Number(ignored);
  }
  for (const [, name] of text.matchAll(/^test (.+?) \.\.\. FAILED$/gm)) tally.failures.push(`cargo: ${name}`);
  // Did not compile, or a test program died without a result.
  if (code !== 0 && failed === 0) {
    failed = 1;
    tally.failures.push(`cargo test ended with exit code ${code}`);
  }
  tally.failed += failed;
}

function addVitestReport(tally, code) {
  const report = existsSync(REPORT) ? JSON.parse(readFileSync(REPORT, 'utf8')) : null;
  let failed = 0;
  for (const file of report?.testResults ?? []) {
    const name = file.name.replace(`${ROOT}/`, '');
    let failedHere = 0;
    for (const test of file.assertionResults) {
      if (test.status === 'passed') tally.passed += 1;
      else if (test.status === 'failed') {
        failedHere += 1;
        tally.failures.push(`${name}: ${test.fullName}`);
      } else {
        tally.skipped += 1;
        tally.skips.push(`${name}: ${test.fullName}`);
      }
    }
    // A file that could not even be loaded has no tests to count.
    if (file.status === 'failed' && failedHere === 0) {
      failedHere = 1;
      tally.failures.push(`${name}: ${(file.message || 'failed outside a test').split('\n')[0]}`);
    }
    failed += failedHere;
  }
  if (code !== 0 && failed === 0) {
    failed = 1;
    tally.failures.push(
      report ? 'vitest: an error outside the tests (see above)' : `vitest ended with exit code ${code}`,
    );
  }
  tally.failed += failed;
}

async function runVitest(tally, args, env = process.env) {
  rmSync(REPORT, { force: true });
  const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${REPORT}`];
  const { code } = await command(process.execPath, [vitest, 'run', ...reporters, ...args], { env, stdout: 1 });
  addVitestReport(tally, code);
}

function report(tally) {
  const missing = new Map();
  for (const name of tally.skips) {
    const reason = name.match(/\(missing: ([^)]+)\)/)?.[1] ?? 'skipped by the test itself';
    missing.set(reason, (missing.get(reason) ?? 0) + 1);
  }
  process.stdout.write('\n');
  for (const [reason, count] of missing) process.stdout.write(`skipped: ${count} (${reason})\n`);
  for (const name of tally.failures) process.stdout.write(`failed: ${name}\n`);
  process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped\n`);
  return tally.failed === 0 ? 0 : 1;
}

// ---- verbs -------------------------------------------------------------------------------------------------------

/** Everything. With arguments: only vitest, which gets them (a path, `-t name`, `--project nbd`). */
export async function test(args) {
  const tally = newTally();
  await installPeers();
  if (args.length === 0) {
    await runChecks(tally);
    await runCargo(tally, []);
  }
  await runVitest(tally, args);
  return report(tally);
}

/** The fast loop: format, lint, types, clippy, unit tests. */
export async function check(args) {
  const tally = newTally();
  await runChecks(tally);
  await runCargo(tally, ['--lib']);
  const present = FAST.filter((name) => existsSync(join(ROOT, 'test', name)));
  await runVitest(tally, [...present.flatMap((name) => ['--project', name]), '--passWithNoTests', ...args]);
  return report(tally);
}

/** Random seeds, again and again, until the time is up (`npm run soak -- SECONDS`). A seed that fails is printed with how to repeat it. */
export async function soak([seconds = String(SOAK_SECONDS)]) {
  const tally = newTally();
  const until = Date.now() + Number(seconds) * 1000;
  const present = SEEDED.filter((name) => existsSync(join(ROOT, 'test', name)));
  for (let pass = 1; Date.now() < until && tally.failed === 0; pass += 1) {
    const seed = String(Math.floor(Math.random() * 2 ** 31));
    process.stdout.write(`soak: pass ${pass}, QUARRY_SEED=${seed}\n`);
    const env = { ...process.env, QUARRY_SEED: seed, QUARRY_SOAK: '1' };
    await runVitest(
      tally,
      present.flatMap((name) => ['--project', name]),
      env,
    );
    const vitestFailed = tally.failed > 0;
    const left = Math.ceil((until - Date.now()) / 1000);
    if (!vitestFailed && left > 0) {
      // It says by itself where it leaves an input that fails.
      const seconds = String(Math.min(FUZZ_SECONDS, left));
      await runCargo(tally, ['--test', 'fuzz'], { ...process.env, QUARRY_FUZZ_SECONDS: seconds });
    }
    if (vitestFailed)
      process.stdout.write(
        `soak: repeat with QUARRY_SEED=${seed} QUARRY_SOAK=1 npm test -- ${present.map((name) => `--project ${name}`).join(' ')}\n`,
      );
  }
  return report(tally);
}
