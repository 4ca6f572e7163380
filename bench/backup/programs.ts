/**
 * Other programs that make backups, each with a folder as its repository and in its usual settings. None of them knows
 * what changed: they read the whole image each time.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256Of } from './image.ts';
import { type Figure, keptIn, type Round, type Subject, timedProgram, type Work } from './steps.ts';

type Program = {
  readonly name: string;
  readonly command: string;
  readonly env: (folder: string) => Readonly<Record<string, string>>;
  readonly init: (repository: string) => readonly string[];
  readonly create: (repository: string, name: string, image: string) => readonly string[];
  readonly restore: (repository: string, name: string) => readonly string[];
};

const RESTIC: Program = {
  name: 'restic',
  command: 'restic',
  env: (folder) => ({ RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: join(folder, 'cache') }),
  init: (repository) => ['restic', '-r', repository, 'init'],
  create: (repository, name, image) => ['restic', '-r', repository, 'backup', '--tag', name, image],
  restore: (repository) => ['restic', '-r', repository, 'restore', 'latest', '--target', '.'],
};

function borg(name: string, chunker: readonly string[]): Program {
  return {
    name,
    command: 'borg',
    env: (folder) => ({ BORG_BASE_DIR: join(folder, 'borg') }),
    init: (repository) => ['borg', 'init', '--encryption', 'none', repository],
    create: (repository, archive, image) => ['borg', 'create', ...chunker, `${repository}::${archive}`, image],
    restore: (repository, archive) => ['borg', 'extract', '--sparse', `${repository}::${archive}`],
  };
}

const PROGRAMS = [RESTIC, borg('borg', []), borg('borg 64 KiB', ['--chunker-params', 'fixed,65536'])] as const;

async function round(program: Program, { folder, image, change, verify }: Work): Promise<Round> {
  const repository = join(folder, 'repository');
  const target = join(folder, 'restored');
  await mkdir(target);
  const step = async (argv: readonly string[], cwd: string): Promise<Figure> => {
    const before = await keptIn(repository);
    const ran = await timedProgram(argv, { folder, env: program.env(folder), cwd });
    const after = await keptIn(repository);
    return { ...ran, storedMib: after.mib - before.mib, objects: after.objects - before.objects };
  };
  await step(program.init(repository), folder);
  const full = await step(program.create(repository, 'first', image), folder);
  await change();
  const incremental = await step(program.create(repository, 'second', image), folder);
  const restore = await step(program.restore(repository, 'second'), target);
  await verify(await sha256Of(join(target, image)));
  return { full, incremental, restore };
}

export type OtherSubject = Subject & { readonly command: string };

export const OTHERS: readonly OtherSubject[] = PROGRAMS.map((program) => ({
  name: program.name,
  command: program.command,
  round: (work) => round(program, work),
}));
