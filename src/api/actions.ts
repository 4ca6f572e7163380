/**
 * `POST …/{id}/action`: one key of the body names the action, its value is the action's own body. This is what an action
 * consists of and how it is carried out, for every resource that has actions; which there are stands with their routes.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Static, TSchema } from 'typebox';
import type { Control } from '../control/control.ts';
import { type Caller, enforce, isAllowed, type Rule, refusal } from '../control/policy.ts';
import { type Asked, param } from './asked.ts';
import { badRequest, tooNew } from './faults.ts';
import { checked } from './schemas.ts';
import type { Json } from './views.ts';

export type ActionCall<Value> = {
  readonly control: Control;
  readonly asked: Asked;
  readonly id: string;
  readonly value: Value;
};

export type Action = {
  /** The first microversion that has it. */
  readonly since: number;
  /** 202 where nothing else is said. */
  readonly status: number;
  readonly rule: Rule | null;
  /** Of the value below the action's key. */
  readonly schema: TSchema;
  run(request: FastifyRequest, control: Control): Promise<Json | null>;
};

/** Ties an action's schema to what it does with a value of that shape. */
export function action<Schema extends TSchema>(
  schema: Schema,
  work: (call: ActionCall<Static<Schema>>) => Promise<unknown>,
  options: { since?: number; status?: number; rule?: Rule } = {},
): Action {
  return {
    since: options.since ?? 0,
    status: options.status ?? 202,
    rule: options.rule ?? null,
    schema,
    async run(request, control) {
      const [value] = Object.values(request.body as Json);
      const call = { control, asked: request.asked, id: param(request, 'id'), value: checked(request, schema, value) };
      const answer = await work(call);
      return typeof answer === 'object' ? (answer as Json | null) : null;
    },
  };
}

/** Runs the action that a body names. */
export async function perform(
  request: FastifyRequest,
  reply: FastifyReply,
  { control, actions }: { control: Control; actions: ReadonlyMap<string, Action> },
): Promise<FastifyReply> {
  const body = request.body;
  if (typeof body !== 'object' || body === null || Array.isArray(body) || Object.keys(body).length !== 1)
    throw badRequest('Malformed request body');
  const [name = ''] = Object.keys(body);
  const found = actions.get(name);
  if (found === undefined || request.asked.minor < found.since) {
    if (found !== undefined) throw tooNew(request.asked.minor);
    const advice = 'Verify the request body and Content-Type header and try again.';
    throw badRequest(`There is no such action: ${name.slice(0, 255)}. ${advice}`);
  }
  requireAction(request.asked.caller, name, found);
  const answer = await found.run(request, control);
  reply.code(found.status);
  return answer === null ? reply.send() : reply.send(answer);
}

/** An action that names no rule changes something, so it is for members. */
function requireAction(caller: Caller, name: string, { rule }: Action): void {
  if (rule !== null) enforce(caller, rule);
  else if (!isAllowed(caller, 'member')) throw refusal(name);
}
