/**
 * `npm run bench`: every server found on this machine and every job, interleaved in one run, several rounds; medians with
 * their spread as a table, everything measured as JSON under bench/results. It judges nothing: there is no pass or fail.
 */
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command } from 'commander';
import { keepResults, median, positive } from './machine.ts';
import { JOBS, type Job } from './nbd/jobs.ts';
import { type Measurement, measure } from './nbd/measure.ts';
import { isInstalled, LIMIT, PEERS, type Peer } from './nbd/peers.ts';

type Options = {
  seconds: number;
  rounds: number;
  sizeMib: number;
  dir: string;
  only?: readonly string[];
  jobs?: readonly string[];
  json?: string;
};

/** Results by job, then by peer: one entry a round. */
export type Results = Map<string, Map<string, Measurement[]>>;

/** Half the distance of the extremes, in percent of the median. */
function spreadPercent(values: readonly number[]): number {
  return ((Math.max(...values) - Math.min(...values)) / 2 / median(values)) * 100;
}

function short(value: number): string {
  if (value >= 10_000) return `${Math.round(value / 1000)}k`;
  if (value >= 100) return String(Math.round(value));
  return value.toFixed(1);
}

function cell(job: Job, measured: readonly Measurement[]): string {
  if (measured.length === 0) return '–';
  const rates = measured.map((one) => (job.unit === 'IOPS' ? one.iops : one.mibPerSecond));
  const of = (pick: (one: Measurement) => number) => short(median(measured.map(pick)));
  const spread = measured.length > 1 ? ` ±${Math.round(spreadPercent(rates))}%` : '';
  return [
    `${short(median(rates))} ${job.unit}${spread}`,
    `${of((one) => one.cpuUsPerIo)} µs CPU`,
    `p99 ${of((one) => one.p99Us)} µs`,
    `${of((one) => one.memoryMib)} MiB`,
  ].join('\n');
}

function printTable(jobs: readonly Job[], peers: readonly Peer[], results: Results): void {
  const table = new Table({ head: ['job', ...peers.map((peer) => peer.name)], style: { head: [], border: [] } });
  for (const job of jobs) {
    table.push([job.name, ...peers.map((peer) => cell(job, results.get(job.name)?.get(peer.name) ?? []))]);
  }
  process.stdout.write(`${table.toString()}\n`);
}

async function runAll(options: Options, jobs: readonly Job[], peers: readonly Peer[]): Promise<Results> {
  const results: Results = new Map(jobs.map((job) => [job.name, new Map(peers.map((peer) => [peer.name, []]))]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const job of jobs) {
      for (const peer of peers) {
        process.stderr.write(`round ${round}/${options.rounds}: ${job.name}, ${peer.name}\n`);
        try {
          const measured = await measure(peer, job, options);
          if (measured !== null) results.get(job.name)?.get(peer.name)?.push(measured);
        } catch (error) {
          process.stderr.write(
            `! ${peer.name}, ${job.name}: ${error instanceof Error ? error.message : String(error)}\n`,
          );
        }
      }
    }
  }
  return results;
}

function select<T extends { readonly name: string }>(
  all: readonly T[],
  wanted: readonly string[] | undefined,
): readonly T[] {
  if (wanted === undefined) return all;
  return wanted.map((name) => {
    const found = all.find((one) => one.name === name);
    if (found === undefined)
      throw new Error(`nothing is called "${name}"; there are: ${all.map((one) => one.name).join(', ')}`);
    return found;
  });
}

const commas = (text: string) => text.split(',').map((name) => name.trim());

function parseOptions(args: readonly string[]): Options {
  const command = new Command('npm run bench --')
    .option('--seconds <n>', 'per job', positive, 5)
    .option('--rounds <n>', 'how often everything is repeated', positive, 3)
    .option('--size-mib <n>', 'of the volume', positive, 2048)
    .option('--dir <dir>', 'where the servers keep their data', tmpdir())
    .option('--only <peers>', 'comma separated', commas)
    .option('--jobs <jobs>', 'comma separated', commas)
    .option('--json <file>', 'where the results go (default: bench/results/TIME.json)');
  return command.parse(args, { from: 'user' }).opts<Options>();
}

function buildLimit(): void {
  const manifest = join(import.meta.dirname, '..', 'native', 'Cargo.toml');
  execFileSync('cargo', ['build', '--quiet', '--release', '--example', 'limit', '--manifest-path', manifest], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** For a test, which looks at the results; `npm run bench` calls main. */
export async function bench(args: readonly string[]): Promise<Results> {
  const options = parseOptions(args);
  if (!isInstalled('fio')) throw new Error('fio is not installed: it is what measures');
  const jobs = select(JOBS, options.jobs);
  const wanted = select(PEERS, options.only);
  if (wanted.includes(LIMIT)) buildLimit();
  const peers = wanted.filter((peer) => isInstalled(peer.program));
  for (const peer of wanted.filter((one) => !peers.includes(one))) {
    process.stderr.write(`${peer.name} is left out: ${peer.program} is not installed\n`);
  }
  const results = await runAll(options, jobs, peers);
  printTable(jobs, peers, results);
  const plain = Object.fromEntries([...results].map(([job, byPeer]) => [job, Object.fromEntries(byPeer)]));
  const { seconds, rounds, sizeMib } = options;
  await keepResults(options.json, { seconds, rounds, sizeMib, results: plain });
  return results;
}

export async function main(args: readonly string[]): Promise<number> {
  await bench(args);
  return 0;
}
