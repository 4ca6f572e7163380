/** Sizes as people type and read them. A volume's size is whole GiB, as in the API. */
import { Failure } from '../base/errors.ts';

export const GIB = 2 ** 30;
/** The API's own limit. */
const GIB_MAX = 2 ** 31 - 1;

const UNITS: Readonly<Record<string, number>> = {
  '': GIB,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  k: 2 ** 10,
  m: 2 ** 20,
  g: GIB,
  t: 2 ** 40,
  p: 2 ** 50,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: GIB,
  tib: 2 ** 40,
  pib: 2 ** 50,
};

function spell(gib: number): string {
  return gib % 1024 === 0 ? `${gib / 1024}TiB` : `${gib}GiB`;
}

/** `10`, `10GiB`, `2TiB` as GiB. What is no whole number of them is refused with the nearest that are. */
export function parseSizeGib(text: string): number {
  const match = text.trim().match(/^(\d+(?:\.\d+)?)\s*([a-z]*)$/i);
  const unit = UNITS[match?.[2]?.toLowerCase() ?? '?'];
  if (match?.[1] === undefined || unit === undefined) {
    const reason = `"${text}" is no size. Sizes are whole GiB: 10, 10GiB, 2TiB.`;
    throw new Failure('bad_request', { reason });
  }
  const gib = (Number(match[1]) * unit) / GIB;
  if (gib > GIB_MAX)
    throw new Failure('bad_request', { reason: `${text} is more than the largest size, ${spell(GIB_MAX)}.` });
  if (Number.isInteger(gib) && gib >= 1) return gib;
  const below = Math.floor(gib);
  const nearest = below >= 1 ? `${spell(below)} or ${spell(below + 1)}` : spell(1);
  throw new Failure('bad_request', { reason: `${text} is not a whole number of GiB. Nearest: ${nearest}.` });
}

const STEPS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function formatBytes(bytes: number): string {
  let value = bytes;
  let step = 0;
  while (value >= 1024 && step < STEPS.length - 1) {
    value /= 1024;
    step += 1;
  }
  const digits = step === 0 || Number.isInteger(value) || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${STEPS[step]}`;
}
