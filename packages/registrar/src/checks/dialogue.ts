import type { ConnectionOptions } from 'node:tls';

import { CALLED_OFF, type Check, type CheckContext, type ProbeResult } from '../check.ts';
import { createTarget, type TargetConfig } from './address.ts';
import { Connection, DONE, type Outcome, type Place } from './connection.ts';
import { createSecret, type PasswordConfig } from './secret.ts';
import { createTlsClient, type TlsConfig } from './tls.ts';

/** What a conversation does next. It goes on with what was heard or worked out. */
export type Step =
  | { readonly step: 'say'; readonly bytes: Buffer | string }
  | Hearing
  /** TLS from here on. */
  | { readonly step: 'secure' }
  /** Something that takes too long to be done while everything else waits. */
  | { readonly step: 'work'; readonly run: () => Promise<Buffer> };

interface Hearing {
  readonly step: 'hear';
  /** What is waited for, such as `its greeting`. */
  readonly what: string;
  /** Of what is there, how many bytes are wanted; undefined while that cannot be told. */
  readonly measure: (heard: Buffer) => number | undefined;
}

/**
 * What is said and heard over one connection, without the connection: a failure to hear something ends it with a reason,
 * so it has to think only of what it hears. Ended early, it has nothing to clean up.
 */
export type Conversation = Generator<Step, ProbeResult, Buffer>;
/** A part of a conversation, which yields what it was for. */
export type Part<T> = Generator<Step, T, Buffer>;

export function* say(bytes: Buffer | string): Part<void> {
  yield { step: 'say', bytes };
}

export function* secure(): Part<void> {
  yield { step: 'secure' };
}

export function* work(run: () => Promise<Buffer>): Part<Buffer> {
  return yield { step: 'work', run };
}

/** So many bytes. */
export function* hear(count: number, what: string): Part<Buffer> {
  return yield { step: 'hear', what, measure: () => count };
}

/** Everything up to these bytes, and them. */
export function* hearUntil(end: Buffer | string, what: string): Part<Buffer> {
  const { length } = Buffer.from(end);
  return yield {
    step: 'hear',
    what,
    measure(heard) {
      const at = heard.indexOf(end);
      return at === -1 ? undefined : at + length;
    },
  };
}

/** What a check that holds a conversation is made of. */
export interface DialogueConfig extends TargetConfig, PasswordConfig {
  readonly tls?: TlsConfig | undefined;
}

/**
 * A check that connects anew for every probe, and is well if the conversation says so.
 * @param talk begins it, with the password as it is now
 */
export function createDialogueCheck(
  kind: string,
  config: DialogueConfig,
  context: CheckContext,
  talk: (password: string | undefined) => Conversation,
): Check {
  const target = createTarget(config, context);
  const secret = createSecret(config);
  const client = config.tls === undefined ? undefined : createTlsClient(config.tls);
  return {
    kind,
    async probe(signal) {
      if (signal.aborted) return CALLED_OFF;
      const place = await target(signal);
      if (!place.ok) return place;
      const password = await secret.read(signal);
      if (!password.ok) return password;
      const options = await client?.options(config.host, signal);
      if (options?.ok === false) return options;
      if (signal.aborted) return CALLED_OFF;
      const result = await converse(place, {
        conversation: talk(password.value),
        tls: options?.value,
        secret: password.value,
        signal,
      });
      return withWarnings(result, [password.warning, options?.warning]);
    },
  };
}

function withWarnings(result: ProbeResult, more: readonly (string | undefined)[]): ProbeResult {
  const warnings = result.ok ? [result.warning, ...more].filter((one) => one !== undefined) : [];
  return warnings.length === 0 ? result : { ok: true, warning: warnings.join('; ') };
}

interface Talk {
  readonly conversation: Conversation;
  /** What to speak TLS with, for a conversation that does. */
  readonly tls: ConnectionOptions | undefined;
  /** What must not be in any reason, whoever says it. */
  readonly secret: string | undefined;
  readonly signal: AbortSignal;
}

async function converse(place: Place, { conversation, signal, ...how }: Talk): Promise<ProbeResult> {
  const connection = new Connection(place, how);
  const onAbort = () => connection.cut();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const result = await follow(conversation, connection);
    return signal.aborted ? CALLED_OFF : result;
  } finally {
    signal.removeEventListener('abort', onAbort);
    connection.cut();
  }
}

async function follow(conversation: Conversation, connection: Connection): Promise<ProbeResult> {
  const opened = await connection.opened();
  if (!opened.ok) return opened;
  let turn = conversation.next();
  // That there is a connection was all there was to know.
  if (turn.done === true) return turn.value;
  while (turn.done !== true) {
    const outcome = await take(turn.value, connection);
    if (!outcome.ok) return outcome;
    turn = conversation.next(outcome.value);
  }
  const parted = await connection.farewell();
  return parted.ok ? turn.value : parted;
}

async function take(step: Step, connection: Connection): Promise<Outcome> {
  switch (step.step) {
    case 'say':
      connection.say(step.bytes);
      return DONE;
    case 'hear':
      return connection.hear(step.measure, step.what);
    case 'secure':
      return connection.secure();
    case 'work':
      return connection.during(step.run());
  }
}
