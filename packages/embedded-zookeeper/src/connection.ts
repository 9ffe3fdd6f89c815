import type { Socket } from 'node:net';
import { authenticate, type Identity } from './acl.ts';
import type { Database } from './database.ts';
import { ErrorCode } from './errors.ts';
import { answerWord } from './four-letter-words.ts';
import { FrameReader } from './frames.ts';
import { JuteReader, MalformedInput } from './jute.ts';
import { type Generation, isOfGeneration, Opcode, Xid } from './opcodes.ts';
import type { RequestContext } from './operation.ts';
import { connectResponse, createReply, sealReply } from './replies.ts';
import { executeRequest, isKnownOpcode } from './requests.ts';
import type { Session, SessionConnection } from './sessions.ts';
import type { Traffic } from './traffic.ts';
import type { Watcher } from './watches.ts';

type Life =
  /** May be a four-letter word; holds the bytes until there are four. */
  | { state: 'undecided'; bytes: Buffer }
  | { state: 'awaiting-handshake' }
  | { state: 'open'; context: RequestContext }
  /** The last answer is on its way; nothing more is read. */
  | { state: 'ending' };

/** A peer gets this long for its handshake, and to hang up after the last answer. */
const IDLE_PEER_MS = 10_000;
const NO_SESSION_PASSWORD = Buffer.alloc(16);

/** One client: cuts its bytes into requests, answers them in order, and passes on the events of its watches. */
export class Connection implements Watcher, SessionConnection {
  readonly #socket: Socket;
  readonly #database: Database;
  readonly #traffic: Traffic;
  readonly #generation: Generation;
  readonly #frames: FrameReader;
  readonly #identities: Identity[];
  #life: Life = { state: 'undecided', bytes: Buffer.alloc(0) };
  #isCorked = false;

  constructor(
    socket: Socket,
    database: Database,
    traffic: Traffic,
    { maxRequestBytes, generation }: { maxRequestBytes: number; generation: Generation },
  ) {
    this.#socket = socket;
    this.#generation = generation;
    this.#database = database;
    this.#traffic = traffic;
    this.#frames = new FrameReader(maxRequestBytes);
    this.#identities = [{ scheme: 'ip', id: socket.remoteAddress ?? '' }];
    traffic.connections++;
    socket.setNoDelay(true);
    socket.setTimeout(IDLE_PEER_MS, () => socket.destroy());
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    // A peer that went away is no news; 'close' follows.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#forget());
  }

  /** All frames of one turn of the event loop leave together. */
  send(frame: Buffer): void {
    if (this.#socket.destroyed || this.#life.state === 'ending') return;
    this.#traffic.sent++;
    if (!this.#isCorked) {
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(frame);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #forget(): void {
    this.#traffic.connections--;
    this.#leaveSession();
  }

  #leaveSession(): void {
    this.#database.watches.removeAll(this);
    if (this.#life.state !== 'open') return;
    const { session } = this.#life.context;
    if (session.connection === this) session.connection = undefined;
  }

  #endWith(frame: Buffer): void {
    this.send(frame);
    this.#end();
  }

  #end(): void {
    this.#leaveSession();
    this.#life = { state: 'ending' };
    this.#socket.setTimeout(IDLE_PEER_MS);
    this.#socket.end();
  }

  #receive(chunk: Buffer): void {
    try {
      const bytes = this.#life.state === 'undecided' ? this.#decide(chunk) : chunk;
      if (bytes === undefined) return;
      for (const frame of this.#frames.push(bytes)) {
        if (this.#socket.destroyed || this.#life.state === 'ending') return;
        this.#traffic.received++;
        if (this.#life.state === 'open') this.#serve(new JuteReader(frame), this.#life.context);
        else this.#greet(new JuteReader(frame));
      }
    } catch (error) {
      // A broken peer costs itself its connection. Anything else is our fault: said aloud, but it stops nobody else.
      if (!(error instanceof MalformedInput))
        process.emitWarning(error instanceof Error ? error : String(error));
      this.#socket.destroy();
    }
  }

  /** Answers a four-letter word, or returns the bytes for the protocol proper once there are enough to tell. */
  #decide(chunk: Buffer): Buffer | undefined {
    if (this.#life.state !== 'undecided') return chunk;
    const bytes = Buffer.concat([this.#life.bytes, chunk]);
    this.#life = { state: 'undecided', bytes };
    if (bytes.length < 4) return undefined;
    const answer = answerWord(bytes.toString('latin1', 0, 4), this.#database, this.#traffic);
    if (answer === undefined) {
      this.#life = { state: 'awaiting-handshake' };
      return bytes;
    }
    this.#life = { state: 'ending' };
    this.#socket.end(answer);
    return undefined;
  }

  #greet(request: JuteReader): void {
    request.int(); // the protocol version, always 0
    const seenZxid = request.long();
    const timeoutMs = request.int();
    const sessionId = request.long();
    const password = request.buffer() ?? Buffer.alloc(0);
    const withReadOnlyFlag = request.remaining > 0;
    // The client knows a later state than this server has: it must try another one, so there is nothing to say.
    if (seenZxid > this.#database.zxid) return this.destroy();

    const session = this.#findSession(sessionId, password, timeoutMs);
    if (session === undefined) {
      const refusal = { timeoutMs: 0, sessionId: 0n, password: NO_SESSION_PASSWORD, withReadOnlyFlag };
      return this.#endWith(connectResponse(refusal));
    }
    const context = { database: this.#database, session, identities: this.#identities, watcher: this };
    this.#life = { state: 'open', context };
    this.#socket.setTimeout(0);
    this.send(
      connectResponse({
        timeoutMs: session.timeoutMs,
        sessionId: session.id,
        password: session.password,
        withReadOnlyFlag,
      }),
    );
  }

  #findSession(id: bigint, password: Buffer, timeoutMs: number): Session | undefined {
    if (id !== 0n) return this.#database.sessions.resume(id, password, timeoutMs, this);
    this.#database.nextZxid();
    return this.#database.sessions.open(timeoutMs, this);
  }

  #serve(request: JuteReader, context: RequestContext): void {
    const xid = request.int();
    const opcode = request.int();
    this.#database.sessions.touch(context.session);
    if (opcode === Opcode.ping) return this.#answer(Xid.ping, ErrorCode.ok);
    if (opcode === Opcode.auth) return this.#authenticate(xid, request);
    if (opcode === Opcode.closeSession) {
      this.#database.endSession(context.session);
      this.#answer(xid, ErrorCode.ok);
      return this.#end();
    }
    if (!isKnownOpcode(opcode) || !isOfGeneration(opcode, this.#generation)) {
      this.#answer(xid, ErrorCode.unimplemented);
      return this.#end();
    }
    this.send(executeRequest(context, xid, opcode, request));
  }

  #authenticate(xid: number, request: JuteReader): void {
    request.int(); // a type that nobody uses
    const scheme = request.string();
    const identity = authenticate(
      scheme,
      request.buffer() ?? Buffer.alloc(0),
      this.#socket.remoteAddress ?? '',
    );
    if (identity === undefined) {
      this.#answer(xid, ErrorCode.authFailed);
      return this.#end();
    }
    const isNew = !this.#identities.some(
      ({ scheme, id }) => scheme === identity.scheme && id === identity.id,
    );
    if (isNew) this.#identities.push(identity);
    this.#answer(xid, ErrorCode.ok);
  }

  #answer(xid: number, code: ErrorCode): void {
    this.send(sealReply(createReply(), xid, this.#database.zxid, code));
  }
}
