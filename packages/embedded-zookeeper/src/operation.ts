import type { Identity } from './acl.ts';
import type { Database } from './database.ts';
import { ErrorCode, RequestRefused } from './errors.ts';
import type { JuteReader, JuteWriter } from './jute.ts';
import type { Session } from './sessions.ts';
import type { Watcher } from './watches.ts';

/** Whose request it is, and everything that it may read or change. One per connection. */
export interface RequestContext {
  readonly database: Database;
  readonly session: Session;
  readonly identities: readonly Identity[];
  /** Who is told of the watches that the request leaves. */
  readonly watcher: Watcher;
}

/**
 * Decodes the body of one request, executes it and writes the body of the reply.
 * Throws RequestRefused for an answer that is only a code, MalformedInput for a body that cannot be read.
 */
export type Operation = (context: RequestContext, body: JuteReader, reply: JuteWriter) => void;

/** A path that the protocol allows to be null but the operation does not. */
export function readPath(body: JuteReader): string {
  const path = body.string();
  if (path === null) throw new RequestRefused(ErrorCode.marshalling);
  return path;
}
