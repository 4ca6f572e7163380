import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { quarry } from '../support/quarry.ts';

describe('a wrong command line', () => {
  test.each([
    ['an unknown command', ['frob']],
    ['no command', []],
    ['a noun without a verb', ['volume']],
    ['an unknown verb', ['volume', 'frob']],
    ['an unknown flag', ['status', '--frob']],
    ['a missing argument', ['volume', 'create']],
    ['a missing size', ['volume', 'create', 'a']],
    ['a size that does not exist', ['volume', 'create', 'a', '--size', '512MiB']],
    ['two sources', ['volume', 'create', 'a', '--from-volume', 'b', '--image', 'c']],
    ['an image that is not there', ['volume', 'create', 'a', '--image', '/nonexistent']],
    ['an unknown format', ['-o', 'xml', 'status']],
    ['a URL that is none', ['--url', 'ftp://host', 'status']],
    ['metadata that is no pair', ['volume', 'create', 'a', '--size', '1', '--metadata', 'x']],
    ['nothing to set', ['volume', 'set', 'a']],
    ['nothing to wait for with an import', ['--no-wait', 'volume', 'create', 'a', '--image', '/etc/hostname']],
  ])('with %s exits 2 and says why', async (_title, args) => {
    const { code, stdout, stderr } = await quarry(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).not.toBe('');
  });
});

describe('help', () => {
  test('goes to standard output, exits 0 and names the exit codes', async () => {
    const { code, stdout } = await quarry(['--help']);
    expect(code).toBe(0);
    expect(stdout).toContain('Exit codes: 0 done, 1 the operation failed, 2 the command line was wrong, 3 not found');
  });

  test('names the global flags at each command', async () => {
    const { stdout } = await quarry(['volume', 'create', '--help']);
    expect(stdout).toMatch(/--size <size>[\s\S]*Global Options:[\s\S]*--url <url>/);
  });
});

describe('without a daemon', () => {
  test.each([
    ['at a host', 'http://127.0.0.1:1', 'connection refused'],
    ['at a socket', 'unix:/nonexistent/api.sock', 'there is no such socket'],
  ])('%s every client command exits 5 and says what to do', async (_title, url, reason) => {
    const { code, stdout, stderr } = await quarry(['volume', 'list'], { env: { QUARRY_URL: url } });
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' });
    expect(stderr).toBe(`quarry: No quarry daemon answers at ${url}: ${reason}. Start one with \`quarry serve\`.\n`);
  });
});

describe('an answer of the daemon', () => {
  let server: Server;
  afterEach(() => {
    server.close();
    server.closeAllConnections();
  });

  function answering(status: number, body: string): Promise<string> {
    server = createServer((_, response) => response.writeHead(status).end(body));
    return new Promise((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
    });
  }

  const fault = (key: string, code: number, message: string) => JSON.stringify({ [key]: { code, message } });

  test.each([
    [400, fault('badRequest', 400, 'Invalid input.'), 2, 'Invalid input.'],
    [
      400,
      fault('badRequest', 400, 'Invalid volume: status must be available.'),
      4,
      'Invalid volume: status must be available.',
    ],
    [
      401,
      '{"error":{"code":401,"title":"Unauthorized","message":"Who are you?"}}',
      4,
      'Who are you? Give a token with --token or QUARRY_TOKEN, or log in with OS_AUTH_URL and the other OS_* variables.',
    ],
    [403, fault('forbidden', 403, 'Not yours.'), 4, 'Not yours.'],
    [404, fault('itemNotFound', 404, 'Volume x could not be found.'), 3, 'Volume x could not be found.'],
    [409, fault('conflictingRequest', 409, 'Taken.'), 4, 'Taken.'],
    [413, fault('overLimit', 413, 'Quota.'), 4, 'Quota.'],
    [500, fault('computeFault', 500, 'Oh no.'), 1, 'Oh no.'],
    [501, fault('notImplemented', 501, 'Not here.'), 4, 'Not here.'],
    [503, fault('serviceUnavailable', 503, 'Shutting down.'), 5, 'Shutting down.'],
    [502, '<html>', 1, 'The daemon answered with status 502 and no explanation.'],
  ])('with status %i and %s becomes exit code %i and one line', async (status, body, exit, message) => {
    const url = await answering(status, body);
    const { code, stdout, stderr } = await quarry(['--url', url, 'volume', 'list']);
    expect({ code, stdout, stderr }).toEqual({ code: exit, stdout: '', stderr: `quarry: ${message}\n` });
  });

  test('that makes no sense exits 1 and says so', async () => {
    const url = await answering(200, '{"volumes":[{"id":7}]}');
    const { code, stderr } = await quarry(['--url', url, 'volume', 'list']);
    expect(code).toBe(1);
    expect(stderr).toContain("The daemon's answer makes no sense here: id is no text.");
  });

  test('with control characters in a name reaches the terminal without them', async () => {
    const volume = {
      id: 'i',
      name: 'a\u001b[2Jb\nc\u202ed',
      status: 'available',
      size: 1,
      created_at: '2026-01-01T00:00:00',
    };
    const url = await answering(200, JSON.stringify({ volumes: [volume] }));
    const { stdout } = await quarry(['--url', url, 'volume', 'list']);
    expect(stdout).toContain('a\\u001b[2Jb\\u000ac\\u202ed');
    expect(stdout.split('\n')).toHaveLength(3);
    const json = await quarry(['--url', url, '-o', 'json', 'volume', 'list']);
    expect(JSON.parse(json.stdout)).toEqual([volume]);
  });

  test('is shown by the columns that were asked for', async () => {
    const volume = { id: 'i', name: null, status: 'available', size: 1, created_at: '2026-01-01T00:00:00' };
    const url = await answering(200, JSON.stringify({ volumes: [volume] }));
    const { stdout } = await quarry(['--url', url, '-o', 'value', '-c', 'status', '-c', 'name', 'volume', 'list']);
    expect(stdout).toBe('available\t-\n');
    const wrong = await quarry(['--url', url, '-c', 'colour', 'volume', 'list']);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain('There is no column "colour". There are: id, name, status, size, created.');
  });
});
