/** `quarry check --repair`: shows the plan of a repair in words, asks, and has it done. What is right is not decided here. */
import { createInterface } from 'node:readline/promises';
import { realClock } from '../../base/clock.ts';
import { Failure } from '../../base/errors.ts';
import type { Files } from '../../base/files.ts';
import type { Plan, Refusal, Repair } from '../../engine/repair.ts';
import { EXIT, OperationFailed } from '../failure.ts';
import type { Printer } from '../print.ts';
import { startProgress } from '../progress.ts';
import { countOf, printViolations, summaryOf } from './check-report.ts';

export type RepairFlags = {
  readonly scrub?: boolean;
  readonly discardDamaged?: boolean;
  readonly fromRoot?: number;
  readonly yes?: boolean;
};

type Parts = { readonly files: Files; readonly printer: Printer; readonly flags: RepairFlags; readonly data: string };

export async function repair(parts: Parts): Promise<void> {
  const { printer, flags, data } = parts;
  const planned = await planOf(parts);
  if (!('plan' in planned)) return refuse(parts, planned);
  try {
    const { plan } = planned;
    if (plan.before.violations.length === 0) printer.object({ fields: summaryOf(plan.before), raw: plan });
    else printViolations(printer, plan.before, plan);
    for (const line of wordsOf(plan, flags)) printer.note(line);
    if (plan.mends.length > 0) {
      await agree(flags);
      const stamp = new Date(realClock.now()).toISOString().replace(/[-:]|\.\d+/g, '');
      const folder = await planned.apply(realClock, stamp);
      printer.note(`Done. What the tables were before is in ${data}/${folder}; remove it when all is well.`);
    }
    if (plan.after.violations.length > 0)
      throw new OperationFailed(
        `${data} is still damaged: ${countOf(plan.after)} that this repair leaves as they are. ${adviceOf(flags)}`,
        EXIT.unusable,
      );
  } finally {
    planned.close();
  }
}

async function planOf({ files, flags }: Parts): Promise<Repair | Refusal> {
  // Loaded here, so that client commands start without the engine.
  const { Repair } = await import('../../engine/repair.ts');
  const progress = flags.scrub === true ? await startProgress('reading sealed extents') : null;
  try {
    return Repair.plan(files, {
      isDiscarding: flags.discardDamaged === true,
      onScrub: progress?.update ?? null,
      fromRoot: flags.fromRoot ?? null,
    });
  } finally {
    progress?.stop();
  }
}

function refuse({ printer, data, flags }: Parts, refusal: Refusal): never {
  printViolations(printer, refusal.before, refusal);
  const roots = refusal.roots.filter(({ number }) => number !== flags.fromRoot);
  for (const { number, path, lastFrame, newestFrame } of roots) {
    const loss =
      newestFrame > lastFrame
        ? `frames ${lastFrame + 1} to ${newestFrame} would be lost`
        : 'no frame is missing after it';
    printer.note(`Root ${number} (${path}) is whole; the journal goes on from it to frame ${lastFrame}; ${loss}.`);
  }
  const next =
    roots.length === 0
      ? 'There is no root to go back to: restore the folder from a copy, or its volumes from backups.'
      : 'Restore the folder from a copy if there is one; else --from-root N goes back to one of these roots, and what was acknowledged after it is lost.';
  throw new OperationFailed(`${data} cannot be repaired as it is. ${next}`, EXIT.unusable);
}

function wordsOf(plan: Plan, flags: RepairFlags): string[] {
  if (plan.mends.length === 0) return ['Nothing is to be mended.'];
  const lines = ['The repair:', ...plan.mends.map(({ path, what, count }) => `  ${path}: ${what} (${count})`)];
  if (flags.fromRoot !== undefined) {
    const frames = plan.lostFrames;
    lines.push(
      frames === null
        ? '  No frame of the journal is known to be missing after it.'
        : `  Acknowledged changes of frames ${frames.fromFrame} to ${frames.toFrame} are lost: writes, and volumes and snapshots made or deleted.`,
      '  Where space was freed and used again after that moment, volumes show bytes of others: do not hand them to their users unseen.',
    );
  }
  if (plan.lost.length > 0) lines.push('Lost, and zeros afterwards:');
  for (const { kind, id, offset, length } of plan.lost) lines.push(`  ${kind} ${id} from ${offset}, ${length} bytes`);
  return lines;
}

function adviceOf(flags: RepairFlags): string {
  return flags.discardDamaged === true
    ? 'Restore the volumes concerned from backups.'
    : 'Reads of them fail; --discard-damaged makes zeros of what cannot be known, and lists it.';
}

async function agree(flags: RepairFlags): Promise<void> {
  if (flags.yes === true) return;
  if (process.stdin.isTTY !== true)
    throw new Failure('bad_request', {
      reason: 'Nothing was changed: there is no terminal to ask on. Say --yes to repair.',
    });
  const line = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await line.question('Repair? Type yes: ');
    if (answer.trim() !== 'yes') throw new OperationFailed('Nothing was changed.');
  } finally {
    line.close();
  }
}
