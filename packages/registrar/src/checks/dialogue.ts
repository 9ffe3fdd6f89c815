import net from 'node:net';
import tls, { type ConnectionOptions } from 'node:tls';

import { CALLED_OFF, type Check, type CheckContext, failure, type ProbeResult } from '../check.ts';
import { connectionReason, createTarget, type TargetConfig } from './address.ts';
import type { Made } from './files.ts';
import { peerWords } from './peer-words.ts';
import { createSecret, type PasswordConfig } from './secret.ts';
import { createTlsClient, type TlsConfig, tlsReason } from './tls.ts';

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

/** The most that one step may hear, and all of them. Nobody who speaks these protocols has more to say to a probe. */
const MAX_HEARD_BYTES = 64 << 10;
const MAX_HEARD_IN_ALL = 256 << 10;
/** How long the other end has to close after the last word. */
const FAREWELL_MS = 50;

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

async function converse(place: { host: string; port: number }, talk: Talk): Promise<ProbeResult> {
  const { signal } = talk;
  const line = createLine(place, talk);
  const onAbort = () => line.cut();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const result = await follow(talk.conversation, line);
    return signal.aborted ? CALLED_OFF : result;
  } finally {
    signal.removeEventListener('abort', onAbort);
    line.cut();
  }
}

async function follow(conversation: Conversation, line: Line): Promise<ProbeResult> {
  const opened = await line.opened();
  if (!opened.ok) return opened;
  let turn = conversation.next();
  // That there is a connection was all there was to know.
  if (turn.done === true) return turn.value;
  while (turn.done !== true) {
    const outcome = await take(turn.value, line);
    if (!outcome.ok) return outcome;
    turn = conversation.next(outcome.value);
  }
  const parted = await line.farewell();
  return parted.ok ? turn.value : parted;
}

type Outcome = Made<Buffer>;

const NOTHING = Buffer.alloc(0);
const DONE: Outcome = { ok: true, value: NOTHING };

function take(step: Step, line: Line): Promise<Outcome> {
  switch (step.step) {
    case 'say':
      return line.say(step.bytes);
    case 'hear':
      return line.hear(step);
    case 'secure':
      return line.secure();
    case 'work':
      return line.during(step.run());
  }
}

/** One connection, over which everything that goes wrong is an outcome. */
interface Line {
  opened(): Promise<Outcome>;
  say(bytes: Buffer | string): Promise<Outcome>;
  hear(wanted: Hearing): Promise<Outcome>;
  secure(): Promise<Outcome>;
  /** Waits for something else, as long as the connection is not cut. */
  during(task: Promise<Buffer>): Promise<Outcome>;
  /**
   * Everything was said: lets it get there, and the other end close first. Fails only when that end has turned us away:
   * in TLS 1.3 a server looks at our certificate when we are through.
   */
  farewell(): Promise<Outcome>;
  /** Ends it at once, and with it whatever is under way. */
  cut(): void;
}

function createLine(place: { host: string; port: number }, { tls: options, secret }: Talk): Line {
  const raw = net.connect({ host: place.host, port: place.port, noDelay: true });
  let socket: net.Socket = raw;
  let heard: Buffer = NOTHING;
  let heardInAll = 0;
  /** Why nothing more will come. */
  let ended: string | undefined;
  let wake = () => {};
  let cutNow = () => {};
  const cutOff = new Promise<undefined>((resolve) => {
    cutNow = () => resolve(undefined);
  });

  const onChange = () => wake();
  function end(reason: string): void {
    ended ??= reason;
    wake();
  }
  function attend(socket: net.Socket): void {
    socket.on('end', () => end(CLOSED));
    socket.on('close', () => end(CLOSED));
    socket.on('error', (error) => end(reasonOf(error)));
  }
  /** Until something has happened. */
  function change(): Promise<void> {
    return new Promise((resolve) => {
      wake = resolve;
    });
  }
  async function until(event: 'connect' | 'secureConnect'): Promise<Outcome> {
    let isThere = false;
    socket.once(event, () => {
      isThere = true;
      wake();
    });
    while (!isThere && ended === undefined) await change();
    return ended === undefined ? DONE : failure(ended);
  }
  /** Takes what has come, but not more than may be held: the rest waits at the other end. */
  function receive(): void {
    while (heard.length <= MAX_HEARD_BYTES) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      heard = heard.length === 0 ? chunk : Buffer.concat([heard, chunk]);
      heardInAll += chunk.length;
    }
  }
  function after(): string {
    const words = peerWords(heard, secret);
    return words === '' ? '' : `, after "${words}"`;
  }

  attend(raw);
  return {
    async opened() {
      const outcome = await until('connect');
      if (!outcome.ok) return outcome;
      if (isSelfConnected(raw)) {
        raw.resetAndDestroy();
        return failure('connection refused');
      }
      raw.on('readable', onChange);
      return DONE;
    },
    say(bytes) {
      socket.write(bytes);
      return Promise.resolve(DONE);
    },
    async hear({ measure, what }) {
      for (;;) {
        receive();
        const wanted = measure(heard);
        if ((wanted ?? heard.length) > MAX_HEARD_BYTES || heardInAll > MAX_HEARD_IN_ALL)
          return failure(`${what} is too long${after()}`);
        if (wanted !== undefined && wanted <= heard.length) {
          const bytes = heard.subarray(0, wanted);
          heard = heard.subarray(wanted);
          return { ok: true, value: bytes };
        }
        if (ended !== undefined) return failure(`${ended} before ${what}${after()}`);
        await change();
      }
    },
    async secure() {
      receive();
      // Whoever has sent what came before TLS, it would be taken for the words of the one behind it.
      if (heard.length > 0) return failure(`the service does not wait for TLS${after()}`);
      raw.off('readable', onChange);
      socket = tls.connect({ ...options, socket: raw });
      attend(socket);
      socket.on('readable', onChange);
      const outcome = await until('secureConnect');
      return outcome.ok || outcome.reason !== CLOSED
        ? outcome
        : failure(`TLS: ${CLOSED} within the handshake`);
    },
    async during(task) {
      const value = await Promise.race([task, cutOff]);
      return value === undefined ? failure(ended ?? CLOSED) : { ok: true, value };
    },
    async farewell() {
      socket.end();
      const timer = setTimeout(() => end('over'), FAREWELL_MS);
      while (ended === undefined && heardInAll <= MAX_HEARD_IN_ALL) {
        receive();
        heard = NOTHING;
        await change();
      }
      clearTimeout(timer);
      return ended?.startsWith('TLS: ') === true ? failure(ended) : DONE;
    },
    cut() {
      end('called off');
      cutNow();
      socket.destroy();
      raw.destroy();
    },
  };
}

/**
 * Where nobody listens on a port that the system also takes for outgoing connections, a connection to it can meet itself,
 * and would be taken for a service.
 */
function isSelfConnected({ localPort, remotePort, localAddress, remoteAddress }: net.Socket): boolean {
  return localPort === remotePort && localAddress === remoteAddress;
}

const CLOSED = 'connection closed by the service';

function reasonOf(error: Error): string {
  return tlsReason(error) ?? connectionReason(error);
}
