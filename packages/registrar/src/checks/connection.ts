import net from 'node:net';
import tls, { type ConnectionOptions } from 'node:tls';

import { failure } from '../check.ts';
import { isSelfConnected, lineReason } from './dial.ts';
import type { Made } from './files.ts';
import { peerWords } from './peer-words.ts';

export interface Place {
  /** An address, never a name. */
  readonly host: string;
  readonly port: number;
}

/** What came of one step; bytes where it was to hear some. */
export type Outcome = Made<Buffer>;

const NOTHING = Buffer.alloc(0);
export const DONE: Outcome = { ok: true, value: NOTHING };

/** The most that is held, and that is heard in all. Nobody who has to do with probes has more to say. */
const MAX_HELD_BYTES = 64 << 10;
const MAX_HEARD_BYTES = 256 << 10;
/** How long the other end has to close after the last word. */
const FAREWELL_MS = 50;
const CLOSED = 'connection closed by the service';

/**
 * One connection of one probe, by TCP and then, if it is asked for, by TLS. Whatever the other end does is an outcome.
 * It has no limit of time: whoever opens it cuts it, at the latest when its signal ends, and nothing of it is left then.
 */
export class Connection {
  readonly #raw: net.Socket;
  readonly #tls: ConnectionOptions | undefined;
  readonly #secret: string | undefined;
  readonly #isCut: Promise<undefined>;
  #resolveCut = (): void => {};
  /** What is spoken over: the raw socket, or TLS on top of it. */
  #socket: net.Socket;
  #held: Buffer = NOTHING;
  #heardBytes = 0;
  /** Why nothing more will come. */
  #ended: string | undefined;
  #wake = (): void => {};
  readonly #onReadable = (): void => this.#wake();

  /**
   * @param how.tls what `secure` goes by
   * @param how.secret what must not be in any reason, whoever says it
   */
  constructor(place: Place, how: { tls: ConnectionOptions | undefined; secret: string | undefined }) {
    this.#tls = how.tls;
    this.#secret = how.secret;
    this.#isCut = new Promise((resolve) => {
      this.#resolveCut = () => resolve(undefined);
    });
    this.#raw = net.connect({ host: place.host, port: place.port, noDelay: true });
    this.#socket = this.#raw;
    this.#attend(this.#raw);
  }

  async opened(): Promise<Outcome> {
    const outcome = await this.#until('connect');
    if (!outcome.ok) return outcome;
    if (isSelfConnected(this.#raw)) {
      this.#raw.resetAndDestroy();
      return failure('connection refused');
    }
    this.#raw.on('readable', this.#onReadable);
    return DONE;
  }

  say(bytes: Buffer | string): void {
    this.#socket.write(bytes);
  }

  /** So many bytes as `measure` says of those that are there; it does not know while there are too few. */
  async hear(measure: (held: Buffer) => number | undefined, what: string): Promise<Outcome> {
    for (;;) {
      this.#receive();
      const wanted = measure(this.#held);
      if ((wanted ?? this.#held.length) > MAX_HELD_BYTES || this.#heardBytes > MAX_HEARD_BYTES)
        return failure(`${what} is too long${this.#after()}`);
      if (wanted !== undefined && wanted <= this.#held.length) {
        const value = this.#held.subarray(0, wanted);
        this.#held = this.#held.subarray(wanted);
        return { ok: true, value };
      }
      if (this.#ended !== undefined) return failure(`${this.#ended} before ${what}${this.#after()}`);
      await this.#change();
    }
  }

  async secure(): Promise<Outcome> {
    this.#receive();
    // Whoever has sent what came before TLS, it would be taken for the words of the one behind it.
    if (this.#held.length > 0) return failure(`the service does not wait for TLS${this.#after()}`);
    this.#raw.off('readable', this.#onReadable);
    this.#socket = tls.connect({ ...this.#tls, socket: this.#raw });
    this.#attend(this.#socket);
    this.#socket.on('readable', this.#onReadable);
    const outcome = await this.#until('secureConnect');
    return outcome.ok || outcome.reason !== CLOSED ? outcome : failure(`TLS: ${CLOSED} within the handshake`);
  }

  /** Waits for something else, as long as the connection is not cut. */
  async during(task: Promise<Buffer>): Promise<Outcome> {
    const value = await Promise.race([task, this.#isCut]);
    return value === undefined ? failure(this.#ended ?? CLOSED) : { ok: true, value };
  }

  /**
   * Everything was said: lets it get there, and the other end close first. Fails only when that end has turned us away:
   * in TLS 1.3 a server looks at our certificate when we are through.
   */
  async farewell(): Promise<Outcome> {
    this.#socket.end();
    const timer = setTimeout(() => this.#end('nothing more to say'), FAREWELL_MS);
    for (;;) {
      this.#receive();
      this.#held = NOTHING;
      if (this.#ended !== undefined || this.#heardBytes > MAX_HEARD_BYTES) break;
      await this.#change();
    }
    clearTimeout(timer);
    return this.#ended?.startsWith('TLS: ') === true ? failure(this.#ended) : DONE;
  }

  /** Ends it at once, and with it whatever is under way. */
  cut(): void {
    this.#end('called off');
    this.#resolveCut();
    this.#socket.destroy();
    this.#raw.destroy();
  }

  #attend(socket: net.Socket): void {
    socket.on('end', () => this.#end(CLOSED));
    socket.on('close', () => this.#end(CLOSED));
    socket.on('error', (error) => this.#end(lineReason(error)));
  }

  #end(reason: string): void {
    this.#ended ??= reason;
    this.#wake();
  }

  /** Until something has happened. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async #until(event: 'connect' | 'secureConnect'): Promise<Outcome> {
    let isThere = false;
    this.#socket.once(event, () => {
      isThere = true;
      this.#wake();
    });
    for (;;) {
      if (this.#ended !== undefined) return failure(this.#ended);
      if (isThere) return DONE;
      await this.#change();
    }
  }

  /** Takes what has come, but not more than may be held: the rest waits at the other end. */
  #receive(): void {
    while (this.#held.length <= MAX_HELD_BYTES) {
      const chunk = this.#socket.read() as Buffer | null;
      if (chunk === null) return;
      this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
      this.#heardBytes += chunk.length;
    }
  }

  #after(): string {
    const words = peerWords(this.#held, this.#secret);
    return words === '' ? '' : `, after "${words}"`;
  }
}
