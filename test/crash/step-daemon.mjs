/**
 * The real daemon, as built, in a process that ends itself by SIGKILL at a chosen step of a chosen kind of task: while the task is
 * being accepted, before and after each of its calls into the backend and the store of backups, in its last commit and behind it.
 * What is wrapped are the tables and calls that the daemon has anyway; it contains nothing for this.
 *
 * Its folder (QUARRY_STEPS) has `order`, {kind, at}, read when a task is accepted, and gets `steps`, a line per step that is
 * reached while there is an order: the task's number, its kind, the step. A step is named by what it is and, since a task may make
 * the same call several times, which of those.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { createLocalBackend } from '../../dist/backend/local.js';
import { addServeOptions } from '../../dist/cli/commands/serve.js';
import { reportError } from '../../dist/cli/failure.js';
import { KINDS } from '../../dist/control/tasks/kinds.js';
import { runServe } from '../../dist/daemon/main.js';
import { FolderObjects } from '../../dist/objects/folder.js';

const FOLDER = process.env.QUARRY_STEPS ?? '';
const BACKEND_CALLS = [
  'createVolume',
  'delete',
  'resizeVolume',
  'createSnapshot',
  'createSnapshots',
  'revertVolume',
  'setLimits',
  'publish',
  'unpublish',
];
const OBJECT_CALLS = ['put', 'delete'];

/** Arguments of a task to what is counted of it: the runner hands the same object to each of its parts. */
const tasks = new WeakMap();
const current = new AsyncLocalStorage();
let lastNumber = 0;

function readOrder() {
  try {
    return JSON.parse(readFileSync(join(FOLDER, 'order'), 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

/** What one step is made of is told before the kill, so that the last line is where the task was. */
function step(task, what) {
  if (task === undefined || task.order === null) return;
  const count = (task.counts.get(what) ?? 0) + 1;
  task.counts.set(what, count);
  const at = `${what} ${count}`;
  appendFileSync(join(FOLDER, 'steps'), `${task.number}\t${task.kind}\t${at}\n`);
  if (task.order.kind === task.kind && task.order.at === at) process.kill(process.pid, 'SIGKILL');
}

function wrapKind(name, kind) {
  const { decode, run, done, after } = kind;
  kind.decode = (plain) => {
    const args = decode(plain);
    lastNumber += 1;
    const task = { number: lastNumber, kind: name, counts: new Map(), order: readOrder() };
    tasks.set(args, task);
    step(task, 'accepted, not committed');
    return args;
  };
  kind.run = (control, args) => {
    const task = tasks.get(args);
    step(task, 'begins');
    return current.run(task, () => run(control, args));
  };
  kind.done = async (control, writer, args) => {
    await done(control, writer, args);
    step(tasks.get(args), 'done, not committed');
  };
  kind.after = async (control, args) => {
    step(tasks.get(args), 'ended');
    await after(control, args);
    step(tasks.get(args), 'followed up');
  };
}

/** With a step before and after it when a task makes it. */
function around(name, call) {
  return async function (...args) {
    const task = current.getStore();
    step(task, `before ${name}`);
    const result = await call.apply(this, args);
    step(task, `after ${name}`);
    return result;
  };
}

for (const [name, kind] of Object.entries(KINDS)) wrapKind(name, kind);
for (const name of OBJECT_CALLS)
  FolderObjects.prototype[name] = around(`objects.${name}`, FolderObjects.prototype[name]);

async function createBackend(options) {
  const backend = await createLocalBackend(options);
  for (const name of BACKEND_CALLS) backend[name] = around(name, backend[name]);
  return backend;
}

let code = 0;
try {
  // As `quarry serve` gets them, behind that word.
  const flags = addServeOptions(new Command('serve')).parse(process.argv.slice(3), { from: 'user' }).opts();
  await runServe(flags, { createBackend });
} catch (error) {
  code = reportError(error);
}
process.exit(code);
