/** What a member may filter by: read off the parsed query, where administrators and members differ. */
import { describe, expect, test } from 'vitest';
import type { Asked } from '../../src/api/asked.ts';
import { type Query, selectionOf, type Words } from '../../src/api/query.ts';

type Column = 'name' | 'status' | 'user_id';
const WORDS: Words<Column> = {
  resource: 'snapshot',
  filters: {
    name: { kind: 'text', column: 'name' },
    status: { kind: 'text', column: 'status' },
    user_id: { kind: 'text', column: 'user_id' },
  },
  sort: {},
};

function asked(role: 'admin' | 'member', minor: number): Asked {
  const caller = { projectId: 'p1', userId: 'u1', role, isAdmin: role === 'admin', isService: false };
  return { caller, minor, root: 'http://h', urlProject: null };
}

const kinds = (query: Query, by: Asked) => selectionOf(query, by, WORDS).filters.map((filter) => filter.kind);

describe('a filter that is not listed for the resource', () => {
  test('is refused from a member from 3.31, by its name', () => {
    for (const query of [{ colour: 'red' }, { user_id: 'u1' }, { name: 'a', colour: 'red' }]) {
      const unknown = Object.keys(query).filter((name) => name !== 'name');
      expect(() => kinds(query, asked('member', 31))).toThrow(
        `Invalid filters ${unknown[0]} are found in query options.`,
      );
    }
    expect(() => kinds({ colour: 'red', shape: 'round' }, asked('member', 71))).toThrow('Invalid filters colour,shape');
  });

  test('is ignored from a member before', () => {
    expect(kinds({ colour: 'red', name: 'a', user_id: 'u1' }, asked('member', 30))).toEqual(['compare']);
  });

  test('matches nothing for an administrator', () => {
    expect(kinds({ colour: 'red' }, asked('admin', 71))).toEqual(['nothing']);
    expect(kinds({ user_id: 'u1' }, asked('admin', 71))).toEqual(['compare']);
  });

  test('never is one that every client adds', () => {
    expect(kinds({ all_tenants: '1', limit: '3', with_count: 'true' }, asked('member', 71))).toEqual([]);
    expect(selectionOf({ all_tenants: '1' }, asked('member', 71), WORDS).projectId).toBe('p1');
    expect(selectionOf({ all_tenants: '1' }, asked('admin', 71), WORDS).projectId).toBeNull();
  });
});

test('a member looks for parts of a name from 3.34', () => {
  expect(kinds({ 'name~': 'a' }, asked('member', 34))).toEqual(['contains']);
  expect(() => kinds({ 'name~': 'a' }, asked('member', 33))).toThrow('Invalid filters name~');
  expect(() => kinds({ 'colour~': 'a' }, asked('member', 34))).toThrow('Invalid filters colour~');
});

test('a filter is named in ASCII', () => {
  expect(() => kinds({ größe: '1' }, asked('admin', 31))).toThrow('Filter keys can only contain ASCII characters.');
});
