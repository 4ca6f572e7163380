/** The client programs of this folder, and all areas of which each has checks. Whom they talk to is their callers' matter. */
import { join } from 'node:path';
import type { Program } from '../support/checks.ts';
import type { PythonEnvironment } from '../support/python.ts';

export const GOPHERCLOUD = join(import.meta.dirname, 'gophercloud');

export function sdk(python: PythonEnvironment): Program {
  const basics = ['volumes', 'snapshots', 'cloud', 'operator', 'types', 'services', 'quotas'];
  return pythonProgram(python, 'sdk.py', [
    ...basics,
    'retype',
    'attachments',
    'transfers',
    'groups',
    'messages',
    'backups',
  ]);
}

export function cinderClient(python: PythonEnvironment): Program {
  const basics = ['volumes', 'snapshots', 'operator', 'types', 'services', 'quotas'];
  return pythonProgram(python, 'cinder_client.py', [
    ...basics,
    'attachments',
    'transfers',
    'groups',
    'messages',
    'backups',
  ]);
}

export function gophercloud(command: string): Program {
  const basics = ['volumes', 'snapshots', 'operator', 'types', 'quotas'];
  return { command, args: [], areas: [...basics, 'retype', 'attachments', 'transfers', 'backups'], options: {} };
}

function pythonProgram(python: PythonEnvironment, file: string, areas: readonly string[]): Program {
  const args = [join(import.meta.dirname, 'python', file)];
  return { command: python.program('python'), args, areas, options: { env: python.env } };
}
