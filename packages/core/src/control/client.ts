import http from 'node:http';

import * as z from 'zod';

import { withDeadline } from '../deadline.ts';
import { isTandemError, messageOf, systemErrorCode, TandemError } from '../errors.ts';
import { UNKNOWN_REQUEST } from './server.ts';

/** Whom to ask for what. */
export interface ControlQuestion {
  /** The absolute path of the daemon's control socket. */
  readonly file: string;
  /** What to call the daemon in messages, such as `discovery daemon`. */
  readonly daemon: string;
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** The parts of the path, as they are: they are encoded here. */
  readonly path: readonly string[];
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

const Refused = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/**
 * Asks a daemon of this host and returns its answer, not yet known to be anything. Throws `CONTROL_UNREACHABLE` with
 * what to do about it if no daemon answers, and `CONTROL_REFUSED` with the daemon's own words if it refuses.
 */
export async function askControl(question: ControlQuestion): Promise<unknown> {
  const { file, daemon, timeoutMs = 10_000 } = question;
  const unreachable = (reason: string, cause?: unknown) =>
    new TandemError('CONTROL_UNREACHABLE', `cannot reach the ${daemon} at ${file}: ${reason}`, {
      cause,
      details: { file },
    });
  let answer: { status: number; text: string };
  try {
    answer = await withDeadline(question.signal, timeoutMs, (signal) => exchange(question, signal));
  } catch (error) {
    if (question.signal?.aborted === true) throw error;
    if (isTandemError(error, 'DEADLINE_EXCEEDED'))
      throw unreachable(`it has not answered within ${timeoutMs} ms. Its log may say why`, error);
    throw unreachable(whatToDo(error), error);
  }
  const value = parse(answer.text);
  if (answer.status === 200 && value !== undefined) return value;
  const refused = Refused.safeParse(value);
  if (!refused.success) throw unreachable('what answers there is not a Tandem daemon');
  const { code, message } = refused.data.error;
  if (code === UNKNOWN_REQUEST)
    throw unreachable('it runs another version, which does not know this request. Restart it', {
      cause: message,
    });
  throw new TandemError('CONTROL_REFUSED', message, { details: { code, status: answer.status } });
}

function exchange(
  { file, method, path, body }: ControlQuestion,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers =
      text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
    const request = http.request(
      {
        socketPath: file,
        path: `/${path.map(encodeURIComponent).join('/')}`,
        method,
        headers,
        agent: false,
        signal,
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER_BYTES) response.destroy(new Error('the answer is too large'));
          else chunks.push(chunk);
        });
        response.once('error', reject);
        response.once('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
        );
      },
    );
    request.once('error', reject);
    request.end(text);
  });
}

function whatToDo(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return 'it is not running, or it runs with another host file. Start it, or name its host file with --config';
    case 'EACCES':
    case 'EPERM':
      return "this user may not use the socket. Join the group of the socket's file, or use sudo";
    case 'ENOTSOCK':
      return 'that is no socket';
    default:
      return messageOf(error);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
