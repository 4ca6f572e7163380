/**
 * How many requests a minute one address, and one project, may send. It counts; who a project is was found out before.
 */
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Failure } from '../base/errors.ts';

/** Null: no limit. */
export type RateLimits = { readonly addressPerMinute: number | null; readonly projectPerMinute: number | null };

const MINUTE_MS = 60_000;
/** Addresses and projects that are counted at once; the one that was quiet longest is forgotten first. */
const COUNTED_MAX = 10_000;

export type Limiter = {
  /** Before anything is known of who asks: it also slows down who tries tokens. */
  countAddress(request: FastifyRequest): Promise<void>;
  countProject(request: FastifyRequest): Promise<void>;
};

type Count = (request: FastifyRequest) => Promise<void>;

export function limitRates(app: FastifyInstance, limits: RateLimits): Limiter {
  let countAddress: Count = async () => {};
  let countProject: Count = async () => {};
  if (limits.addressPerMinute !== null || limits.projectPerMinute !== null) {
    app.register(rateLimit, { global: false, cache: COUNTED_MAX });
    app.after(() => {
      countAddress = counter(app, limits.addressPerMinute, (request) => `address ${request.ip}`);
      countProject = counter(app, limits.projectPerMinute, (request) => `project ${request.asked.caller.projectId}`);
    });
  }
  return {
    countAddress: (request) => countAddress(request),
    countProject: (request) => countProject(request),
  };
}

function counter(app: FastifyInstance, max: number | null, keyOf: (request: FastifyRequest) => string): Count {
  if (max === null) return async () => {};
  const count = app.createRateLimit({ max, timeWindow: MINUTE_MS, keyGenerator: keyOf });
  return async (request) => {
    const state = await count(request);
    if (state.isAllowed || !state.isExceeded) return;
    throw new Failure('rate_limited', { seconds: Math.max(1, state.ttlInSeconds) });
  };
}
