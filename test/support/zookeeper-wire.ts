// A small ZooKeeper client for tests, written from the protocol and sharing no code with the product:
// a mistake in one side's encoding must not be hidden by the same mistake in the other's.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export class WireWriter {
  readonly #parts: Buffer[] = [];

  raw(bytes: Buffer): this {
    this.#parts.push(bytes);
    return this;
  }

  int(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    return this.raw(bytes);
  }

  long(value: bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(value);
    return this.raw(bytes);
  }

  boolean(value: boolean): this {
    return this.raw(Buffer.from([value ? 1 : 0]));
  }

  /** A string, a buffer or null, all with their length in front. */
  text(value: string | Buffer | null): this {
    if (value === null) return this.int(-1);
    const bytes = Buffer.from(value);
    return this.int(bytes.length).raw(bytes);
  }

  texts(values: readonly string[]): this {
    this.int(values.length);
    for (const value of values) this.text(value);
    return this;
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export interface WireStat {
  czxid: bigint;
  mzxid: bigint;
  ctime: bigint;
  mtime: bigint;
  version: number;
  cversion: number;
  aversion: number;
  ephemeralOwner: bigint;
  dataLength: number;
  numChildren: number;
  pzxid: bigint;
}

export class WireReader {
  readonly bytes: Buffer;
  offset: number;

  constructor(bytes: Buffer, offset = 0) {
    this.bytes = bytes;
    this.offset = offset;
  }

  get remaining(): number {
    return this.bytes.length - this.offset;
  }

  int(): number {
    this.offset += 4;
    return this.bytes.readInt32BE(this.offset - 4);
  }

  long(): bigint {
    this.offset += 8;
    return this.bytes.readBigInt64BE(this.offset - 8);
  }

  boolean(): boolean {
    return this.bytes.readUInt8(this.offset++) !== 0;
  }

  buffer(): Buffer | null {
    const length = this.int();
    if (length < 0) return null;
    this.offset += length;
    return this.bytes.subarray(this.offset - length, this.offset);
  }

  text(): string | null {
    return this.buffer()?.toString() ?? null;
  }

  vector<T>(readItem: (reader: WireReader) => T): T[] {
    return Array.from({ length: Math.max(0, this.int()) }, () => readItem(this));
  }

  texts(): (string | null)[] {
    return this.vector((reader) => reader.text());
  }

  stat(): WireStat {
    return {
      czxid: this.long(),
      mzxid: this.long(),
      ctime: this.long(),
      mtime: this.long(),
      version: this.int(),
      cversion: this.int(),
      aversion: this.int(),
      ephemeralOwner: this.long(),
      dataLength: this.int(),
      numChildren: this.int(),
      pzxid: this.long(),
    };
  }
}

export interface WireReply {
  readonly xid: number;
  readonly zxid: bigint;
  readonly code: number;
  readonly body: WireReader;
}

export interface WireEvent {
  readonly type: number;
  readonly path: string | null;
}

export type Encode = (body: WireWriter) => unknown;

export interface WireOptions {
  readonly host?: string;
  readonly timeoutMs?: number;
  readonly sessionId?: bigint;
  readonly password?: Buffer;
  readonly lastZxidSeen?: bigint;
  /** The trailing byte of the ConnectRequest; undefined leaves it out, as old clients do. */
  readonly readOnly?: boolean | undefined;
}

export interface WireClient {
  readonly sessionId: bigint;
  readonly password: Buffer;
  /** As negotiated; 0 if the server does not know the session. */
  readonly timeoutMs: number;
  /** Whether the ConnectResponse had the trailing read-only byte. */
  readonly hasReadOnlyByte: boolean;
  readonly lastZxid: bigint;
  /** Every event so far, in the order of arrival. */
  readonly events: WireEvent[];
  readonly isClosed: boolean;
  /** The connection has ended, by whichever side. Rejects if it ended only because nothing happened on it any more. */
  readonly closed: Promise<void>;
  readonly socket: Socket;
  /** Rejects when the connection ends before the reply. */
  request(opcode: number, encode?: Encode, xid?: number): Promise<WireReply>;
  ping(): Promise<WireReply>;
  /** Sends a frame as it is, for what no client should send. */
  sendFrame(body: Buffer): void;
  destroy(): void;
}

const PING = { opcode: 11, xid: -2 };
const AUTH = { opcode: 100, xid: -4 };
const NOTIFICATION_XID = -1;
/** A wait for something that never comes ends after this time without any traffic. */
const IDLE_MS = 15_000;

function frame(body: Buffer): Buffer {
  return new WireWriter().int(body.length).raw(body).bytes();
}

/** Calls back with every length-prefixed frame. Simple, not fast for huge replies. */
function onFrames(socket: Socket, take: (frame: Buffer) => void): void {
  let bytes: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    let offset = 0;
    while (bytes.length - offset >= 4) {
      const end = offset + 4 + bytes.readInt32BE(offset);
      if (bytes.length < end) break;
      take(bytes.subarray(offset + 4, end));
      offset = end;
    }
    bytes = bytes.subarray(offset);
  });
}

/** Connects and greets. Resolves also when the server refuses the session (`timeoutMs` 0); rejects when it hangs up. */
export async function connectWire(port: number, options: WireOptions = {}): Promise<WireClient> {
  const { timeoutMs = 10_000, sessionId = 0n, password = Buffer.alloc(16), lastZxidSeen = 0n } = options;
  const socket = connect({ port, host: options.host ?? '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  const greeting = new WireWriter().int(0).long(lastZxidSeen).int(timeoutMs).long(sessionId).text(password);
  const readOnly = 'readOnly' in options ? options.readOnly : false;
  if (readOnly !== undefined) greeting.boolean(readOnly);
  socket.write(frame(greeting.bytes()));
  return new Promise((resolve, reject) => {
    const state = createState(socket, lastZxidSeen);
    let client: WireClient | undefined;
    onFrames(socket, (bytes) => {
      if (client !== undefined) return state.take(bytes);
      client = present(socket, state, bytes);
      resolve(client);
    });
    state.closed.then(() => reject(new Error('the server hung up on the handshake')), reject);
  });
}

interface PendingReply {
  resolve(reply: WireReply): void;
  reject(error: Error): void;
}

function createState(socket: Socket, lastZxidSeen: bigint) {
  const pending = new Map<number, PendingReply[]>();
  const state = {
    lastZxid: lastZxidSeen,
    isClosed: false,
    events: [] as WireEvent[],
    pending,
    nextXid: 1,
    closed: new Promise<void>((resolve, reject) => {
      let isIdle = false;
      socket.setTimeout(IDLE_MS, () => {
        isIdle = true;
        socket.destroy();
      });
      // An error is always followed by 'close'; a reset is one way for a server to hang up.
      socket.on('error', () => {});
      socket.on('close', () => {
        state.isClosed = true;
        for (const waiting of [...pending.values()].flat()) waiting.reject(new Error('the connection ended'));
        pending.clear();
        if (isIdle) reject(new Error(`nothing happened for ${IDLE_MS} ms`));
        else resolve();
      });
    }),
    take(bytes: Buffer): void {
      const body = new WireReader(bytes);
      const [xid, zxid, code] = [body.int(), body.long(), body.int()];
      if (xid === NOTIFICATION_XID) {
        const type = body.int();
        body.int(); // the state, always "connected"
        state.events.push({ type, path: body.text() });
        return;
      }
      if (zxid > state.lastZxid) state.lastZxid = zxid;
      pending.get(xid)?.shift()?.resolve({ xid, zxid, code, body });
    },
  };
  // Whoever does not wait for the end need not hear how it came.
  state.closed.catch(() => {});
  return state;
}

function present(socket: Socket, state: ReturnType<typeof createState>, greeting: Buffer): WireClient {
  const reader = new WireReader(greeting);
  reader.int();
  const [timeoutMs, sessionId, password] = [reader.int(), reader.long(), reader.buffer() ?? Buffer.alloc(0)];
  const request = (opcode: number, encode: Encode = () => {}, xid = state.nextXid++) =>
    new Promise<WireReply>((resolve, reject) => {
      if (state.isClosed) return reject(new Error('the connection has ended'));
      const body = new WireWriter().int(xid).int(opcode);
      encode(body);
      const waiting = state.pending.get(xid);
      if (waiting === undefined) state.pending.set(xid, [{ resolve, reject }]);
      else waiting.push({ resolve, reject });
      socket.write(frame(body.bytes()));
    });
  return {
    sessionId,
    password,
    timeoutMs,
    hasReadOnlyByte: reader.remaining === 1,
    get lastZxid() {
      return state.lastZxid;
    },
    get isClosed() {
      return state.isClosed;
    },
    events: state.events,
    closed: state.closed,
    socket,
    request,
    ping: () => request(PING.opcode, undefined, PING.xid),
    sendFrame: (body) => socket.write(frame(body)),
    destroy: () => socket.destroy(),
  };
}

/** Sends a text over a new connection and returns all that comes back until the server hangs up. */
export async function askWord(
  port: number,
  word: string,
  { host = '127.0.0.1', timeoutMs = 3000 }: { host?: string; timeoutMs?: number } = {},
): Promise<string> {
  const socket = connect({ port, host });
  socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer to ${word} in ${timeoutMs} ms`)));
  socket.write(word);
  let answer = '';
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

export interface WireAcl {
  readonly permissions: number;
  readonly scheme: string | null;
  readonly id: string | null;
}

export const OPEN_ACL: readonly WireAcl[] = [{ permissions: 31, scheme: 'world', id: 'anyone' }];
export const FLAGS = {
  persistent: 0,
  ephemeral: 1,
  sequential: 2,
  ephemeralSequential: 3,
  container: 4,
} as const;

function encodeAcl(body: WireWriter, acl: readonly WireAcl[] | null): WireWriter {
  if (acl === null) return body.int(-1);
  body.int(acl.length);
  for (const { permissions, scheme, id } of acl) body.int(permissions).text(scheme).text(id);
  return body;
}

export type CreateKind = 'create' | 'create2' | 'createContainer';
const CREATE_OPCODES: Readonly<Record<CreateKind, number>> = { create: 1, create2: 15, createContainer: 19 };

export interface CreateArguments {
  readonly path: string | null;
  readonly data?: string | null;
  readonly flags?: number;
  readonly acl?: readonly WireAcl[] | null;
}

function encodeCreate(
  body: WireWriter,
  { path, data = '', flags = 0, acl = OPEN_ACL }: CreateArguments,
): WireWriter {
  return encodeAcl(body.text(path).text(data), acl).int(flags);
}

/** A step of a multi. `raw` is for what no client should send. */
export type MultiStep =
  | ({ readonly op: CreateKind } & CreateArguments)
  | { readonly op: 'delete' | 'check'; readonly path: string; readonly version?: number }
  | {
      readonly op: 'setData';
      readonly path: string;
      readonly data?: string | null;
      readonly version?: number;
    }
  | { readonly op: 'raw'; readonly type: number; readonly body: Buffer };

function encodeStep(body: WireWriter, step: MultiStep): WireWriter {
  const header = (type: number) => body.int(type).boolean(false).int(-1);
  switch (step.op) {
    case 'create':
    case 'create2':
    case 'createContainer':
      return encodeCreate(header(CREATE_OPCODES[step.op]), step);
    case 'delete':
      return header(2)
        .text(step.path)
        .int(step.version ?? -1);
    case 'check':
      return header(13)
        .text(step.path)
        .int(step.version ?? -1);
    case 'setData':
      return header(5)
        .text(step.path)
        .text(step.data ?? null)
        .int(step.version ?? -1);
    case 'raw':
      return header(step.type).raw(step.body);
  }
}

export interface MultiResult {
  type: number;
  code: number;
  path?: string | null;
  data?: string | null;
  children?: (string | null)[];
  stat?: WireStat;
}

function decodeMulti(body: WireReader): MultiResult[] {
  const results: MultiResult[] = [];
  for (;;) {
    const [type, isEnd, code] = [body.int(), body.boolean(), body.int()];
    if (isEnd) return results;
    if (type === -1) results.push({ type, code: body.int() });
    else if (type === 1) results.push({ type, code, path: body.text() });
    else if (type === 15) results.push({ type, code, path: body.text(), stat: body.stat() });
    else if (type === 5) results.push({ type, code, stat: body.stat() });
    else if (type === 4) results.push({ type, code, data: body.text(), stat: body.stat() });
    else if (type === 8) results.push({ type, code, children: body.texts() });
    else results.push({ type, code });
  }
}

/** What an operation answered: a code and, if that is 0, whatever the reply holds. */
export interface WireResult extends Partial<Omit<MultiResult, 'type'>> {
  readonly code: number;
  readonly acl?: readonly WireAcl[];
  readonly results?: MultiResult[];
  readonly count?: number;
  readonly clients?: readonly { scheme: string | null; user: string | null }[];
}

async function ask(
  client: WireClient,
  opcode: number,
  encode: Encode,
  decode: (body: WireReader) => Omit<WireResult, 'code'> = () => ({}),
): Promise<WireResult> {
  const { code, body } = await client.request(opcode, encode);
  return code === 0 ? { code, ...decode(body) } : { code };
}

const decodeStat = (body: WireReader) => ({ stat: body.stat() });
const decodePath = (body: WireReader) => ({ path: body.text() });
const target = (path: string | null, isWatched: boolean) => (body: WireWriter) =>
  body.text(path).boolean(isWatched);

/** The operations of the protocol, each one request and its decoded reply. */
export const zk = {
  create: (client: WireClient, create: CreateArguments) =>
    ask(client, CREATE_OPCODES.create, (body) => encodeCreate(body, create), decodePath),
  create2: (client: WireClient, create: CreateArguments, kind: 'create2' | 'createContainer' = 'create2') =>
    ask(
      client,
      CREATE_OPCODES[kind],
      (body) => encodeCreate(body, create),
      (body) => ({ path: body.text(), stat: body.stat() }),
    ),
  createTtl: (client: WireClient, create: CreateArguments, ttl: bigint) =>
    ask(client, 21, (body) => encodeCreate(body, create).long(ttl), decodePath),
  delete: (client: WireClient, path: string | null, version = -1) =>
    ask(client, 2, (body) => body.text(path).int(version)),
  check: (client: WireClient, path: string, version = -1) =>
    ask(client, 13, (body) => body.text(path).int(version)),
  exists: (client: WireClient, path: string | null, isWatched = false) =>
    ask(client, 3, target(path, isWatched), decodeStat),
  getData: (client: WireClient, path: string | null, isWatched = false) =>
    ask(client, 4, target(path, isWatched), (body) => ({ data: body.text(), stat: body.stat() })),
  setData: (client: WireClient, path: string | null, data: string | null, version = -1) =>
    ask(client, 5, (body) => body.text(path).text(data).int(version), decodeStat),
  getAcl: (client: WireClient, path: string | null) =>
    ask(
      client,
      6,
      (body) => body.text(path),
      (body) => ({
        acl: body.vector((item) => ({ permissions: item.int(), scheme: item.text(), id: item.text() })),
        stat: body.stat(),
      }),
    ),
  setAcl: (client: WireClient, path: string | null, acl: readonly WireAcl[] | null, version = -1) =>
    ask(client, 7, (body) => encodeAcl(body.text(path), acl).int(version), decodeStat),
  getChildren: (client: WireClient, path: string | null, isWatched = false) =>
    ask(client, 8, target(path, isWatched), (body) => ({ children: body.texts() })),
  getChildren2: (client: WireClient, path: string | null, isWatched = false) =>
    ask(client, 12, target(path, isWatched), (body) => ({ children: body.texts(), stat: body.stat() })),
  sync: (client: WireClient, path: string | null) => ask(client, 9, (body) => body.text(path), decodePath),
  multi: (client: WireClient, steps: readonly MultiStep[]) =>
    ask(
      client,
      14,
      (body) => {
        for (const step of steps) encodeStep(body, step);
        body.int(-1).boolean(true).int(-1);
      },
      (body) => ({ results: decodeMulti(body) }),
    ),
  multiRead: (
    client: WireClient,
    reads: readonly { readonly type: number; readonly path: string | null }[],
  ) =>
    ask(
      client,
      22,
      (body) => {
        for (const { type, path } of reads) body.int(type).boolean(false).int(-1).text(path).boolean(false);
        body.int(-1).boolean(true).int(-1);
      },
      (body) => ({ results: decodeMulti(body) }),
    ),
  getEphemerals: (client: WireClient, prefix: string | null) =>
    ask(
      client,
      103,
      (body) => body.text(prefix),
      (body) => ({ children: body.texts() }),
    ),
  getAllChildrenNumber: (client: WireClient, path: string | null) =>
    ask(
      client,
      104,
      (body) => body.text(path),
      (body) => ({ count: body.int() }),
    ),
  /** Mode 0 is persistent, mode 1 persistent and recursive. */
  addWatch: (client: WireClient, path: string | null, mode: number) =>
    ask(client, 106, (body) => body.text(path).int(mode)),
  /** Type 1 removes child watches, 2 data watches, 3 all. */
  removeWatches: (client: WireClient, path: string | null, type: number) =>
    ask(client, 18, (body) => body.text(path).int(type)),
  checkWatches: (client: WireClient, path: string | null, type: number) =>
    ask(client, 17, (body) => body.text(path).int(type)),
  setWatches: (client: WireClient, zxid: bigint, watches: readonly (readonly string[])[]) =>
    ask(client, watches.length > 3 ? 105 : 101, (body) => {
      body.long(zxid);
      for (const paths of watches) body.texts(paths);
    }),
  auth: async (client: WireClient, scheme: string, proof: string) => {
    const encode = (body: WireWriter) => body.int(0).text(scheme).text(proof);
    const { code } = await client.request(AUTH.opcode, encode, AUTH.xid);
    return { code };
  },
  whoAmI: (client: WireClient) =>
    ask(
      client,
      107,
      () => {},
      (body) => ({ clients: body.vector((item) => ({ scheme: item.text(), user: item.text() })) }),
    ),
  closeSession: (client: WireClient) => ask(client, -11, () => {}),
};
