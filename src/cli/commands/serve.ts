/** `quarry serve`: flags in, the daemon's own entry called. What a flag means, and which may go together, is the daemon's. */
import type { Command } from 'commander';
import type { ServeFlags } from '../../daemon/main.ts';
import { collect } from '../context.ts';

export function addServeOptions(command: Command): Command {
  return command
    .option('--data <dir>', 'pool, catalog and sockets; one daemon per folder (default: ./quarry-data)')
    .option('--config <file>', 'TOML or JSON; every flag has a key there')
    .option('--api <addr>', 'host:port or unix:PATH; repeatable (default: 127.0.0.1:8776)', collect)
    .option('--api-tls-cert <file>', 'serve the API on TCP over HTTPS: the certificate, PEM, with its chain')
    .option('--api-tls-key <file>', 'its key, PEM')
    .option('--nbd <addr>', 'unix:PATH or host:port; repeatable (default: unix:DIR/nbd.sock)', collect)
    .option('--nbd-tls <mode>', 'off, allow or require TLS of NBD clients (default: off)')
    .option('--nbd-tls-cert <file>', 'the certificate NBD clients are shown, PEM, with its chain')
    .option('--nbd-tls-key <file>', 'its key, PEM')
    .option('--nbd-tls-client-ca <file>', 'NBD clients must show a certificate of this authority, PEM')
    .option(
      '--auth <kind>',
      'none (default; loopback and unix sockets only), token or keystone: docs/authentication.md',
    )
    .option('--insecure', 'allow --auth none on any address')
    .option('--catalog <url>', 'sqlite:PATH (default: sqlite:DIR/catalog.db)')
    .option('--backups <url>', 'file:DIR, s3://BUCKET/PREFIX or none (default: file:DIR/backups)')
    .option('--s3-endpoint <url>', 'an S3 server other than Amazon')
    .option('--log-level <level>', 'how much is logged on standard error (default: info)')
    .option('--log-format <format>', 'json or pretty (default: pretty on a terminal)');
}

export function registerServe(program: Command): void {
  addServeOptions(program.command('serve'))
    .description('run the daemon: volumes over NBD, the API over HTTP')
    .action(async (flags: ServeFlags) => {
      // Loaded here, so that client commands start without the daemon's dependencies.
      const { runServe } = await import('../../daemon/main.ts');
      await runServe(flags);
    });
}
