import type { Credentials } from './credentials.ts';
import { OPCODE } from './opcodes.ts';
import { type LibraryRequest, packAuth, packHello, packRequest } from './packets.ts';
import type { WatchTable } from './watches.ts';

/** What is said first on a new connection, before anything that waits (B8, B19). */
export interface Greeting {
  readonly hello: Buffer;
  /** The last transaction that we claim to have seen. */
  readonly lastZxid: bigint;
  /** Once per connection: who we are, then the watches, which may need it. */
  readonly requests: readonly LibraryRequest[];
}

export function createGreeting(options: {
  lastZxid: bigint;
  /** For how long there has been no session to speak of. */
  downMs: number;
  session: { id: bigint; password: Buffer; timeoutMs: number };
  credentials: Credentials | undefined;
  watches: WatchTable;
}): Greeting {
  const { session, credentials, watches, downMs } = options;
  // A server whose data were wiped drops every client that has seen more than it has, without a word (B10).
  // After half a session timeout in vain the client stops claiming so, and learns whether its session still lives. With
  // the attempts being a quarter of it apart, whoever has lost its data is with us again within one timeout.
  const lastZxid = downMs > session.timeoutMs / 2 ? 0n : options.lastZxid;
  const hello = packHello({
    lastZxid,
    timeoutMs: session.timeoutMs,
    sessionId: session.id,
    password: session.password,
  });
  return {
    hello,
    lastZxid,
    requests: [
      ...(credentials === undefined ? [] : [packAuth(credentials)]),
      ...watches.requests(lastZxid).map((body) => packRequest(OPCODE.setWatches, body)),
    ],
  };
}
