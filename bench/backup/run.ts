/**
 * `node tools/bootstrap.mjs run bench/backup/run.ts [image|sparse]`: backups of an image of which little changes, ours beside
 * programs that read everything, in turns; and of a large volume with little in it. It judges nothing.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import { keepResults, median, positive } from '../machine.ts';
import { isInstalled } from '../nbd/peers.ts';
import { quarrySubject } from './daemon.ts';
import { apply, type Change, changesOf, filledMib, KIB, MIB, makeImage, sha256Of } from './image.ts';
import { OTHERS } from './programs.ts';
import { benchSparse, type SparseFigure, type SparseSizes } from './sparse.ts';
import { type Figure, type Round, STEPS, type Step, type Subject } from './steps.ts';

type Options = {
  readonly rounds: number;
  readonly imageMib: number;
  readonly filesMib: number;
  readonly places: number;
  readonly incompressible: number;
  readonly sizeGib: number;
  readonly mappedGib: number;
  readonly changedMib: number;
  readonly only?: readonly string[];
  readonly dir: string;
  readonly json?: string;
};

export type ImageFigures = {
  readonly imageMib: number;
  readonly filledMib: number;
  readonly changedMib: number;
  /** Of 64 KiB, with a change in them: what has to be read if what changed is known. */
  readonly changedChunks: number;
  readonly rounds: ReadonlyMap<string, readonly Round[]>;
};

export type ImageOptions = Pick<Options, 'rounds' | 'imageMib' | 'filesMib' | 'places' | 'incompressible'>;

/** Each subject once a round, so that a busy minute hits all of them alike. */
export async function benchImage(
  folder: string,
  options: ImageOptions,
  others: readonly Subject[],
): Promise<ImageFigures> {
  const { imageMib } = options;
  const image = join(folder, 'image');
  process.stderr.write(`making an image of ${imageMib} MiB\n`);
  await makeImage(image, options);
  const changes = changesOf(imageMib, options);
  const subjects = [quarrySubject(imageMib, changes), ...others];
  const rounds = new Map<string, Round[]>(subjects.map(({ name }) => [name, []]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const subject of subjects) {
      process.stderr.write(`round ${round}/${options.rounds}: ${subject.name}\n`);
      const own = join(folder, 'work');
      await mkdir(own);
      rounds.get(subject.name)?.push(await oneRound(subject, { folder: own, image, changes }));
      await rm(own, { recursive: true });
    }
  }
  const chunks = new Set(changes.flatMap(({ offset, data }) => [...chunksOf(offset, data.length)]));
  const changedMib = changes.reduce((sum, { data }) => sum + data.length, 0) / MIB;
  return { imageMib, filledMib: await filledMib(image), changedMib, changedChunks: chunks.size, rounds };
}

function* chunksOf(offset: number, length: number): Generator<number> {
  for (let chunk = Math.floor(offset / (64 * KIB)); chunk * 64 * KIB < offset + length; chunk += 1) yield chunk;
}

async function oneRound(
  subject: Subject,
  { folder, image, changes }: { folder: string; image: string; changes: readonly Change[] },
): Promise<Round> {
  let before: readonly Change[] = [];
  const change = async (): Promise<void> => {
    before = await apply(image, changes);
  };
  const verify = async (restored: string): Promise<void> => {
    if (restored !== (await sha256Of(image))) throw new Error(`${subject.name} restored other bytes`);
  };
  const round = await subject.round({ folder, image, change, verify });
  await apply(image, before);
  return round;
}

/** The median of each of its numbers by itself. */
function middle(rounds: readonly Round[], step: Step): Figure {
  const of = (field: keyof Figure): number => median(rounds.map((round) => round[step][field]));
  return {
    seconds: of('seconds'),
    cpuSeconds: of('cpuSeconds'),
    readMib: of('readMib'),
    storedMib: of('storedMib'),
    objects: of('objects'),
  };
}

const digits = (value: number): string => value.toFixed(value < 100 ? 1 : 0);

function printImage({ imageMib, filledMib, changedMib, changedChunks, rounds }: ImageFigures): void {
  const head = ['', ...STEPS.flatMap((step) => [`${step} s`, 'CPU s'])];
  const seconds = new Table({ head, style: { head: [], border: [] } });
  const made = ['full', 'incremental'] as const;
  const bytesHead = made.flatMap((step) => [`${step} read MiB`, 'stored MiB', 'objects / GiB']);
  const bytes = new Table({ head: ['', ...bytesHead], style: { head: [], border: [] } });
  for (const [name, all] of rounds) {
    if (all.length === 0) continue;
    const figures = Object.fromEntries(STEPS.map((step) => [step, middle(all, step)])) as Record<Step, Figure>;
    const times = STEPS.flatMap((step) => [figures[step].seconds.toFixed(2), figures[step].cpuSeconds.toFixed(2)]);
    seconds.push([name, ...times]);
    const perGib = (figure: Figure): string => ((figure.objects * KIB) / imageMib).toFixed(0);
    const kept = made.map((step) => figures[step]);
    bytes.push([name, ...kept.flatMap((one) => [digits(one.readMib), digits(one.storedMib), perGib(one)])]);
  }
  process.stdout.write(
    `image of ${imageMib} MiB, ${digits(filledMib)} MiB of it not zero; ${digits(changedMib)} MiB changed, ` +
      `in ${digits((changedChunks * 64) / KIB)} MiB of chunks\n${seconds.toString()}\n${bytes.toString()}\n`,
  );
}

function printSparse({ sizeGib, mappedMib, changedMib }: SparseSizes, figures: readonly SparseFigure[]): void {
  const head = ['', 's', 'CPU s', 'read MiB', 'stored MiB', 'objects', 'memory before MiB', 'peak MiB'];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const { name, seconds, cpuSeconds, readMib, storedMib, objects, beforeMib, peakMib } of figures) {
    const cells = [readMib, storedMib, objects, beforeMib, peakMib].map((value) => Math.round(value));
    table.push([name, seconds.toFixed(2), cpuSeconds.toFixed(2), ...cells]);
  }
  process.stdout.write(
    `volume of ${sizeGib} GiB, ${mappedMib} MiB mapped in pieces of 1 MiB; ${changedMib} MiB changed in pieces of 64 KiB\n${table.toString()}\n`,
  );
}

function share(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('must be a number from 0 to 1');
  return value;
}

function parse(argv: readonly string[]): { what: string; options: Options } {
  const command = new Command('bench/backup')
    .argument('[what]', 'image or sparse; both if left out', 'both')
    .option('--rounds <n>', 'how often the image is backed up by each', positive, 3)
    .option('--image-mib <n>', 'size of the image', positive, 1024)
    .option('--files-mib <n>', 'of files in it', positive, 690)
    .option('--places <n>', 'changed, of 4 to 64 KiB', positive, 425)
    .option('--incompressible <share>', 'of what is written there', share, 0.5)
    .option('--size-gib <n>', 'size of the sparse volume', positive, 1024)
    .option('--mapped-gib <n>', 'what is in it', positive, 2)
    .option('--changed-mib <n>', 'what changes of that', positive, 100)
    .option('--only <subjects>', 'of the others, comma separated', (text) => text.split(',').map((name) => name.trim()))
    .option('--dir <dir>', 'where everything lies', tmpdir())
    .option('--json <file>', 'where the results go (default: bench/results/TIME.json)')
    .parse([...argv], { from: 'user' });
  const [what] = command.processedArgs as [string];
  if (!['both', 'image', 'sparse'].includes(what)) throw new Error(`nothing is called '${what}' here: image or sparse`);
  return { what, options: command.opts<Options>() };
}

function installed(only: readonly string[] | undefined): readonly Subject[] {
  const wanted = OTHERS.filter(({ name }) => only === undefined || only.includes(name));
  return wanted.filter(({ name, command }) => {
    const isHere = isInstalled(command);
    if (!isHere) process.stderr.write(`${name} is left out: ${command} is not installed\n`);
    return isHere;
  });
}

export async function main(argv: readonly string[]): Promise<number> {
  const { what, options } = parse(argv);
  const folder = await mkdtemp(join(options.dir, 'quarry-bench-'));
  const results: Record<string, unknown> = {};
  try {
    if (what !== 'sparse') {
      const figures = await benchImage(folder, options, installed(options.only));
      printImage(figures);
      results['image'] = { ...figures, rounds: Object.fromEntries(figures.rounds) };
    }
    if (what !== 'image') {
      const { sizeGib, mappedGib, changedMib } = options;
      const sizes = { sizeGib, mappedMib: mappedGib * KIB, changedMib };
      const own = join(folder, 'sparse');
      await mkdir(own);
      const figures = await benchSparse(own, sizes);
      printSparse(sizes, figures);
      results['sparse'] = figures;
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  await keepResults(options.json, { options, ...results });
  return 0;
}
