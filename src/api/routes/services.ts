/**
 * The services of this installation for its administrator: listed, enabled, disabled, frozen, and how much they log.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { isLogLevel, type LogLevel } from '../../base/log.ts';
import { isAt } from '../../control/pools.ts';
import {
  disableService,
  enableService,
  failoverHost,
  freezeHost,
  listServices,
  type Service,
  type ServiceName,
  thawHost,
  VOLUME_SERVICE,
} from '../../control/services.ts';
import { badRequest } from '../faults.ts';
import { one, type Query } from '../query.ts';
import { DisableService, FailoverHost, GetLog, NameHost, NameService, SetLog } from '../schemas/services.ts';
import { checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, timeOf } from '../views.ts';

const LOGS_SINCE = 32;
/** There is one log. */
const LOG_PREFIX = 'quarry';

export function serviceRoutes(app: FastifyInstance, context: RouteContext): void {
  const { control } = context;

  app.get(
    '/os-services',
    { config: { rule: 'volume_extension:services:index', query: ['host', 'binary'] } },
    async (request) => {
      const query = request.query as Query;
      const [host, binary] = [one(query, 'host'), one(query, 'binary')];
      const services = (await listServices(control, request.asked.caller)).filter(
        (service) => (host === undefined || isAt(service.host, host)) && (binary ?? service.binary) === service.binary,
      );
      const zone = control.settings.availabilityZone;
      // Whoever answers this is alive now.
      const updatedAt = timeOf(control.nowUs());
      return {
        services: services.map((service) => serviceView(service, { minor: request.asked.minor, zone, updatedAt })),
      };
    },
  );

  app.put(
    '/os-services/enable',
    { config: { rule: 'volume_extension:services:update', body: NameService } },
    async (request) => {
      const name = checked(request, NameService, request.body);
      await enableService(control, request.asked.caller, nameOf(name));
      return { ...said(name), status: 'enabled', disabled: false };
    },
  );
  app.put(
    '/os-services/disable',
    { config: { rule: 'volume_extension:services:update', body: NameService } },
    async (request) => {
      const name = checked(request, NameService, request.body);
      await disableService(control, request.asked.caller, { name: nameOf(name), reason: null });
      return { ...said(name), status: 'disabled', disabled: true };
    },
  );
  app.put(
    '/os-services/disable-log-reason',
    { config: { rule: 'volume_extension:services:update', body: DisableService } },
    async (request) => {
      const { disabled_reason: reason, ...name } = checked(request, DisableService, request.body);
      await disableService(control, request.asked.caller, { name: nameOf(name), reason });
      return { ...said(name), status: 'disabled', disabled: true, disabled_reason: reason };
    },
  );

  app.put('/os-services/freeze', { config: { rule: 'volume:freeze_host', body: NameHost } }, async (request, reply) => {
    await freezeHost(control, request.asked.caller, checked(request, NameHost, request.body).host);
    return reply.code(200).send();
  });
  app.put('/os-services/thaw', { config: { rule: 'volume:thaw_host', body: NameHost } }, async (request, reply) => {
    await thawHost(control, request.asked.caller, checked(request, NameHost, request.body).host);
    return reply.code(200).send();
  });
  app.put(
    '/os-services/failover_host',
    { config: { rule: 'volume:failover_host', body: FailoverHost, status: 202 } },
    async (request, reply) => {
      await failoverHost(control, request.asked.caller, checked(request, FailoverHost, request.body).host);
      return reply.code(202).send();
    },
  );
  // The newer name for the same.
  app.put(
    '/os-services/failover',
    { config: { since: 26, rule: 'volume:failover_host', body: FailoverHost, status: 202 } },
    async (request, reply) => {
      await failoverHost(control, request.asked.caller, checked(request, FailoverHost, request.body).host);
      return reply.code(202).send();
    },
  );
  logRoutes(app, context);
}

type Named = { readonly binary?: string; readonly service?: string; readonly host: string };

function nameOf({ binary, service, host }: Named): ServiceName {
  const name = binary || service;
  if (name === undefined || name === '') throw badRequest("'binary' is a required property");
  return { binary: name, host };
}

function said({ binary, service, host }: Named): Json {
  return { host, service: service ?? '', binary: binary ?? '' };
}

function serviceView(
  service: Service,
  { minor, zone, updatedAt }: { minor: number; zone: string; updatedAt: string | null },
): Json {
  const isVolume = service.binary === VOLUME_SERVICE;
  return {
    binary: service.binary,
    host: service.host,
    zone,
    status: service.isDisabled ? 'disabled' : 'enabled',
    state: service.isUp ? 'up' : 'down',
    updated_at: updatedAt,
    disabled_reason: service.disabledReason,
    ...(minor >= 7 && { cluster: null }),
    ...(isVolume && { replication_status: 'disabled', active_backend_id: null, frozen: service.isFrozen }),
    ...(isVolume && minor >= 49 && { backend_state: 'up' }),
  };
}

function logRoutes(app: FastifyInstance, { control }: RouteContext): void {
  type Which = { readonly binary?: string | null; readonly server?: string | null; readonly prefix?: string | null };

  /** All services share one process and its log. */
  const logsOf = async (request: FastifyRequest, { binary, server, prefix }: Which): Promise<ServiceName[]> => {
    const services: ServiceName[] = await listServices(control, request.asked.caller);
    const all = [{ binary: 'cinder-api', host: control.settings.host }, ...services];
    return all.filter(
      (one) =>
        (!binary || binary === '*' || one.binary === binary) &&
        (!server || one.host === server) &&
        LOG_PREFIX.startsWith(prefix ?? ''),
    );
  };

  app.put(
    '/os-services/get-log',
    { config: { since: LOGS_SINCE, rule: 'volume_extension:services:update', body: GetLog } },
    async (request) => {
      const which = checked(request, GetLog, request.body ?? {});
      const level = nameOfLevel(control.log.level());
      const logs = await logsOf(request, which);
      return { log_levels: logs.map(({ binary, host }) => ({ binary, host, levels: { [LOG_PREFIX]: level } })) };
    },
  );
  app.put(
    '/os-services/set-log',
    { config: { since: LOGS_SINCE, rule: 'volume_extension:services:update', body: SetLog, status: 202 } },
    async (request, reply) => {
      const { level, ...which } = checked(request, SetLog, request.body ?? {});
      const wanted = levelOf(level);
      if ((await logsOf(request, which)).length > 0) control.log.setLevel(wanted);
      return reply.code(202).send();
    },
  );
}

/** The protocol's words for levels and ours. */
const LEVELS: Readonly<Record<string, LogLevel>> = { CRITICAL: 'fatal', WARNING: 'warn' };

function nameOfLevel(level: LogLevel): string {
  const found = Object.entries(LEVELS).find(([, ours]) => ours === level);
  return found?.[0] ?? level.toUpperCase();
}

function levelOf(text: string | null): LogLevel {
  const word = (text ?? '').toUpperCase();
  const level = Object.hasOwn(LEVELS, word) ? LEVELS[word] : word.toLowerCase();
  if (level !== undefined && isLogLevel(level)) return level;
  throw badRequest(
    `Invalid input received: level '${text}' is not one of CRITICAL, ERROR, WARNING, INFO, DEBUG and TRACE.`,
  );
}
