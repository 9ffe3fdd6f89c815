/** The connection that a session is on. */
export interface SessionConnection {
  /** Ends it at once: its session has expired or has moved to another connection. */
  destroy(): void;
}

export interface Session {
  readonly id: bigint;
  readonly password: Buffer;
  timeoutMs: number;
  deadlineMs: number;
  connection: SessionConnection | undefined;
}

export interface SessionLimits {
  readonly minTimeoutMs: number;
  readonly maxTimeoutMs: number;
}

const PASSWORD_BYTES = 16;

/** The sessions that are alive, whether connected or not. Knows nothing of their nodes and watches. */
export class Sessions {
  readonly #limits: SessionLimits;
  readonly #now: () => number;
  readonly #random: (size: number) => Buffer;
  readonly #sessions = new Map<bigint, Session>();
  #lastId: bigint;

  constructor(limits: SessionLimits, now: () => number, random: (size: number) => Buffer) {
    this.#limits = limits;
    this.#now = now;
    this.#random = random;
    // As in the Java server, ids start from the time, so that those of an earlier server are not given again.
    this.#lastId = BigInt.asUintN(62, (BigInt(Math.floor(now())) << 16n) | BigInt(random(2).readUInt16BE()));
  }

  /** Oldest first. */
  all(): Session[] {
    return [...this.#sessions.values()];
  }

  get(id: bigint): Session | undefined {
    return this.#sessions.get(id);
  }

  open(timeoutMs: number, connection: SessionConnection): Session {
    const session: Session = {
      id: ++this.#lastId,
      password: this.#random(PASSWORD_BYTES),
      timeoutMs: this.#clamp(timeoutMs),
      deadlineMs: 0,
      connection,
    };
    this.#sessions.set(session.id, session);
    this.touch(session);
    return session;
  }

  /** Moves a session to this connection and ends its old one; undefined if there is no such session or the password is wrong. */
  resume(
    id: bigint,
    password: Buffer,
    timeoutMs: number,
    connection: SessionConnection,
  ): Session | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined || !session.password.equals(password)) return undefined;
    const old = session.connection;
    session.connection = connection;
    session.timeoutMs = this.#clamp(timeoutMs);
    this.touch(session);
    old?.destroy();
    return session;
  }

  /** The client has been heard from. */
  touch(session: Session): void {
    session.deadlineMs = this.#now() + session.timeoutMs;
  }

  /** Whether the session was still alive. */
  remove(session: Session): boolean {
    return this.#sessions.delete(session.id);
  }

  /** Sessions that were not heard from for longer than their timeout. */
  overdue(): Session[] {
    const now = this.#now();
    return this.all().filter((session) => session.deadlineMs < now);
  }

  #clamp(timeoutMs: number): number {
    return Math.min(this.#limits.maxTimeoutMs, Math.max(this.#limits.minTimeoutMs, timeoutMs));
  }
}
