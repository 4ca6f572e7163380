/**
 * `node tools/bootstrap.mjs run bench/snapshots/run.ts [latency|chain|ageing]`: what snapshots cost, at once and in the long run.
 * Two to three minutes each; `--minutes N` lets `ageing` go on for so long. It judges nothing.
 */
import { tmpdir } from 'node:os';
import { Command } from 'commander';
import { ageing } from './ageing.ts';
import { chainOfCopies, type LatencySizes, snapshotLatency } from './latency.ts';

type Options = { dir: string; minutes: string; sizes: string; before: string; seconds: string };

function line(...cells: readonly (string | number)[]): void {
  const shown = cells.map((cell, at) => (at === 0 ? String(cell).padEnd(38) : show(cell).padStart(9)));
  process.stdout.write(`${shown.join(' ')}\n`);
}

function show(cell: string | number): string {
  if (typeof cell === 'string') return cell;
  return cell >= 100 ? String(Math.round(cell)) : cell.toFixed(2);
}

async function latency(sizes: LatencySizes): Promise<void> {
  line('snapshots', 'p50 ms', 'p99 ms', 'max ms', 'IOPS', 'before', 'I/O max', 'before ms');
  for await (const { name, p50Ms, p99Ms, maxMs, load, loadBefore } of snapshotLatency(sizes)) {
    const seen = load === null || loadBefore === null ? [] : [load.iops, loadBefore.iops, load.maxMs, loadBefore.maxMs];
    line(name, p50Ms, p99Ms, maxMs, ...seen);
  }
}

async function chain(sizes: LatencySizes): Promise<void> {
  line('copies of copies', 'read', 'write');
  for (const { copies, readIops, writeIops } of await chainOfCopies(sizes)) line(String(copies), readIops, writeIops);
}

async function age(dir: string, minutes: number): Promise<void> {
  const secondsPerRound = 5;
  line('round', 'IOPS', 'p99 ms', 'max ms', 'snap ms', 'mapped', 'alone', 'used MiB', 'tables');
  const sizes = { dir, sizeMib: 1024, secondsPerRound, kept: 5, rounds: Math.ceil((minutes * 60) / secondsPerRound) };
  for await (const { round, load, snapshotMs, mappedMib, exclusiveMib, usedMib, metadataMib } of ageing(sizes))
    line(String(round), load.iops, load.p99Ms, load.maxMs, snapshotMs, mappedMib, exclusiveMib, usedMib, metadataMib);
}

export async function main(argv: readonly string[]): Promise<number> {
  const program = new Command()
    .name('bench/snapshots')
    .argument('[what]', 'latency, chain or ageing', 'latency')
    .option('--dir <DIR>', 'where the pool lies', tmpdir())
    .option('--minutes <N>', 'how long `ageing` goes on', '2')
    .option('--sizes <GIB>', 'sizes of the volume for `latency`', '1,16384')
    .option('--before <COUNTS>', 'snapshots taken before those that are measured', '1,10000')
    .option('--seconds <N>', 'of each load', '8')
    .parse([...argv], { from: 'user' });
  const [what] = program.processedArgs as [string];
  const { dir, minutes, sizes, before, seconds } = program.opts<Options>();
  const numbers = (text: string): number[] => text.split(',').map(Number);
  const wanted: LatencySizes = {
    ...{ dir, sizesGib: numbers(sizes), snapshotsBefore: numbers(before), seconds: Number(seconds) },
    ...{ taken: 200, usedMib: 1024, chain: 1000 },
  };
  if (what === 'latency') await latency(wanted);
  else if (what === 'chain') await chain(wanted);
  else if (what === 'ageing') await age(dir, Number(minutes));
  else throw new Error(`nothing is called '${what}' here: latency, chain or ageing`);
  return 0;
}
