/**
 * The microversion of a request: read from `OpenStack-API-Version`, refused when it is malformed or out of range.
 */
import { badRequest, Fault } from './faults.ts';

export const MINOR_MAX = 71;

/** N of 3.N. Items of other services are ignored; without one of ours it is 3.0. */
export function minorOf(header: string | string[] | undefined): number {
  const text = Array.isArray(header) ? header.join(',') : (header ?? '');
  for (const item of text.split(',')) {
    const [service, version, ...rest] = item.trim().split(/\s+/);
    if (service !== 'volume') continue;
    if (version === 'latest' && rest.length === 0) return MINOR_MAX;
    return parse([version ?? '', ...rest].join(' '));
  }
  return 0;
}

function parse(version: string): number {
  const match = /^(\d{1,6})\.(\d{1,6})$/.exec(version);
  if (match === null) {
    const message = `API Version String ${version} is of invalid format. Must be of format MajorNum.MinorNum.`;
    throw badRequest(message);
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  if (major === 3 && minor <= MINOR_MAX) return minor;
  throw new Fault(
    406,
    'computeFault',
    `Version ${version} is not supported by the API. Minimum is 3.0 and maximum is 3.${MINOR_MAX}.`,
  );
}

export function versionHeader(minor: number): string {
  return `volume 3.${minor}`;
}
