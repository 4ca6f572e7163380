/** Two projects and the people in them, with static tokens: who may what is asked of the API as any client would. */
import { digestOf, type StaticToken, StaticTokens } from '../../src/api/auth/static-tokens.ts';

export const ONE = '11111111111111111111111111111111';
export const OTHER = '22222222222222222222222222222222';

export const PEOPLE = {
  admin: { projectId: ONE, roles: ['admin', 'member', 'reader'] },
  'admin elsewhere': { projectId: OTHER, roles: ['admin'] },
  manager: { projectId: ONE, roles: ['manager'] },
  member: { projectId: ONE, roles: ['member', 'reader'] },
  reader: { projectId: ONE, roles: ['reader'] },
  'member elsewhere': { projectId: OTHER, roles: ['member'] },
  'reader elsewhere': { projectId: OTHER, roles: ['reader'] },
  service: { projectId: OTHER, roles: ['service'] },
} as const;
export type Person = keyof typeof PEOPLE;

export function tokenOf(person: Person): string {
  return `token-of-${person.replace(' ', '-')}`;
}

export function people(): StaticTokens {
  return new StaticTokens(Object.keys(PEOPLE).map((name) => staticToken(name as Person)));
}

function staticToken(name: Person): StaticToken {
  return { digest: digestOf(tokenOf(name)), userId: `user-${name.replace(' ', '-')}`, ...PEOPLE[name] };
}

/** The header by which one shows who one is. */
export function as(person: Person): Record<string, string> {
  return { 'x-auth-token': tokenOf(person) };
}
