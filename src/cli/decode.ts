/** Answers of the API as checked values: the one place where JSON of unknown shape becomes typed. */

export type Json = { readonly [key: string]: unknown };

export class UnexpectedAnswer extends Error {
  constructor(what: string) {
    super(`The daemon's answer makes no sense here: ${what}. Are the versions of quarry and its daemon the same?`);
    this.name = 'UnexpectedAnswer';
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function object(value: unknown, what: string): Json {
  if (!isObject(value)) throw new UnexpectedAnswer(`${what} is no object`);
  return value;
}

export function member(value: unknown, key: string): Json {
  return object(object(value, 'the answer')[key], key);
}

export function members(value: unknown, key: string): Json[] {
  const list = object(value, 'the answer')[key];
  if (!Array.isArray(list)) throw new UnexpectedAnswer(`${key} is no list`);
  return list.map((item) => object(item, key));
}

export function text(from: Json, key: string): string {
  const value = from[key];
  if (typeof value !== 'string') throw new UnexpectedAnswer(`${key} is no text`);
  return value;
}

export function maybeText(from: Json, key: string): string | null {
  return typeof from[key] === 'string' ? text(from, key) : null;
}

export function maybeNumber(from: Json, key: string): number | null {
  return typeof from[key] === 'number' ? number(from, key) : null;
}

export function number(from: Json, key: string): number {
  const value = from[key];
  if (typeof value !== 'number') throw new UnexpectedAnswer(`${key} is no number`);
  return value;
}
