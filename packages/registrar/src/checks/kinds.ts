import * as z from 'zod';

import type { Check, CheckContext, Schedule } from '../check.ts';
import { CommandSection, createCommandCheck } from './command.ts';
import { createGrpcCheck, GrpcSection } from './grpc.ts';
import { createHttpCheck, HttpSection } from './http.ts';
import { createMysqlCheck, MysqlSection } from './mysql.ts';
import { createNoopCheck, NoopSection } from './noop.ts';
import { createPostgresCheck, PostgresSection } from './postgres.ts';
import { createPushCheck, PushSection } from './push.ts';
import { createRabbitmqCheck, RabbitmqSection } from './rabbitmq.ts';
import { createRedisCheck, RedisSection } from './redis.ts';
import { createTcpCheck, TcpSection } from './tcp.ts';
import { resolveTlsFiles, type TlsConfig } from './tls.ts';

/** Every kind of check: its key in the configuration, its schema, its factory, and what it looks at. */
const KINDS = {
  http: kind(HttpSection, createHttpCheck, 'a request whose answer says how the service is'),
  tcp: kind(TcpSection, createTcpCheck, 'a connection to the port of the service, and what is said there'),
  grpc: kind(GrpcSection, createGrpcCheck, 'a server that tells its health in the way of gRPC'),
  redis: kind(RedisSection, createRedisCheck, 'a Redis server: its PING, its role'),
  mysql: kind(MysqlSection, createMysqlCheck, 'a MySQL or MariaDB server: its handshake, a login'),
  postgres: kind(
    PostgresSection,
    createPostgresCheck,
    'a PostgreSQL server: that it takes connections, a login',
  ),
  rabbitmq: kind(RabbitmqSection, createRabbitmqCheck, 'a RabbitMQ server: a login, a virtual host'),
  command: kind(CommandSection, createCommandCheck, 'a program whose exit status says how the service is'),
  push: kind(PushSection, createPushCheck, 'what the service reports of itself; silence is failure'),
  noop: kind(NoopSection, createNoopCheck, 'nothing: it always passes'),
};

type Kinds = typeof KINDS;

/** One check as it was configured: plain data, equal when its meaning is equal. */
export type CheckConfig = {
  [K in keyof Kinds]: { readonly kind: K; readonly options: z.output<Kinds[K]['section']> };
}[keyof Kinds];

/** One entry of `checks`: a map with a single key, the kind. */
export const CheckSection = z.strictObject(shapeOf(KINDS)).transform((entry, context): CheckConfig => {
  const given = Object.entries(entry)
    .filter(([, options]) => options !== undefined)
    .map(([kind, options]) => ({ kind, options }) as CheckConfig);
  const [only] = given;
  // A mistyped kind has been named already.
  if (context.issues.length > 0) return z.NEVER;
  if (only !== undefined && given.length === 1) return only;
  const known = Object.keys(KINDS).join(', ');
  context.addIssue({ code: 'custom', message: `must have exactly one kind of check (known: ${known})` });
  return z.NEVER;
});

/** Makes a configured check ready to probe. */
export function createCheck({ kind, options }: CheckConfig, context: CheckContext): Check {
  return KINDS[kind].create(options, context);
}

/** The same with every file that it names absolute: kinds that name some call them alike. */
export function resolveCheckFiles(
  { kind, options }: CheckConfig,
  absolute: (file: string) => string,
): CheckConfig {
  const { tls, passwordFile }: NamedFiles = options;
  const files = {
    ...(tls === undefined ? {} : { tls: resolveTlsFiles(tls, absolute) }),
    ...(passwordFile === undefined ? {} : { passwordFile: absolute(passwordFile) }),
  };
  return { kind, options: { ...options, ...files } } as CheckConfig;
}

interface NamedFiles {
  readonly schedule: Schedule;
  readonly tls?: TlsConfig | undefined;
  readonly passwordFile?: string | undefined;
}

export function scheduleOf(config: CheckConfig): Schedule {
  return config.options.schedule;
}

interface Kind<S extends z.ZodType> {
  readonly section: S;
  readonly description: string;
  /** The options are what the section has made of a file. */
  create(options: unknown, context: CheckContext): Check;
}

function kind<S extends z.ZodType<{ readonly schedule: Schedule }>>(
  section: S,
  create: (options: z.output<S>, context: CheckContext) => Check,
  description: string,
): Kind<S> {
  return {
    section,
    description,
    create: (options, context) => create(options as z.output<S>, context),
  };
}

/** Every kind may be there; which one is there decides. */
function shapeOf(kinds: Readonly<Record<string, Kind<z.ZodType>>>): Record<string, z.ZodOptional> {
  return Object.fromEntries(
    Object.entries(kinds).map(([name, { section, description }]) => [
      name,
      section.optional().describe(description),
    ]),
  );
}
