/** A bar on a terminal, a line now and then otherwise; always on standard error. */
import { formatBytes } from './sizes.ts';

/** Between two lines where there is no terminal. */
const LINE_EVERY_MS = 5_000;

export type ProgressBar = { update(doneBytes: number, totalBytes: number): void; stop(): void };

export async function startProgress(title: string): Promise<ProgressBar> {
  if (process.stderr.isTTY === true) return await terminalBar(title);
  let last = Date.now();
  return {
    update(done, total) {
      if (Date.now() - last < LINE_EVERY_MS) return;
      last = Date.now();
      const percent = Math.floor((done / Math.max(total, 1)) * 100);
      process.stderr.write(`${title}: ${percent}% (${formatBytes(done)} of ${formatBytes(total)})\n`);
    },
    stop() {},
  };
}

async function terminalBar(title: string): Promise<ProgressBar> {
  const { default: cliProgress } = await import('cli-progress');
  const format = `${title} [{bar}] {percentage}% {done} of {size}, {eta_formatted} left`;
  const bar = new cliProgress.SingleBar(
    { format, stream: process.stderr, hideCursor: true, clearOnComplete: true },
    cliProgress.Presets.shades_classic,
  );
  let isStarted = false;
  return {
    update(done, total) {
      const payload = { done: formatBytes(done), size: formatBytes(total) };
      if (isStarted) bar.update(done, payload);
      else bar.start(total, done, payload);
      isStarted = true;
    },
    stop() {
      if (isStarted) bar.stop();
    },
  };
}
