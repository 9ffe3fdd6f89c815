// Requests at a steady rate, half of them on kept-alive connections; every one that fails is counted and kept.
import http from 'node:http';

export interface Load extends AsyncDisposable {
  readonly sent: () => number;
  /** What was wrong with every request that did not get a 200. */
  readonly failures: readonly string[];
  /** Stops sending, waits for the last answers, and says how many came from which origin. */
  stop(): Promise<ReadonlyMap<string, number>>;
}

const ANSWER_DEADLINE_MS = 10_000;
const MAX_IN_FLIGHT = 500;

/** An open loop: slow answers do not slow it down, beyond 500 unanswered requests they count as failures. */
export function startLoad(options: { port: number; perSecond: number }): Load {
  const { port, perSecond } = options;
  const kept = new http.Agent({ keepAlive: true, maxSockets: 20 });
  const failures: string[] = [];
  const answers = new Map<string, number>();
  const inFlight = new Set<Promise<void>>();
  let sent = 0;

  function send(): void {
    sent += 1;
    if (inFlight.size >= MAX_IN_FLIGHT) {
      failures.push('too many requests without an answer');
      return;
    }
    const one = ask(port, sent % 2 === 0 ? kept : false).then(
      (body) => void answers.set(body, (answers.get(body) ?? 0) + 1),
      (error: unknown) => void failures.push(String(error)),
    );
    inFlight.add(one);
    void one.finally(() => inFlight.delete(one));
  }

  const startedAt = performance.now();
  const timer = setInterval(() => {
    const due = ((performance.now() - startedAt) * perSecond) / 1_000;
    while (sent < due) send();
  }, 5);

  async function stop(): Promise<ReadonlyMap<string, number>> {
    clearInterval(timer);
    await Promise.all(inFlight);
    kept.destroy();
    return answers;
  }

  return { sent: () => sent, failures, stop, [Symbol.asyncDispose]: async () => void (await stop()) };
}

/** The body of a 200; rejects for everything else. */
export function ask(port: number, agent: http.Agent | false = false, path = '/'): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      { host: '127.0.0.1', port, path, agent, timeout: ANSWER_DEADLINE_MS },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (body += chunk));
        response.once('error', reject);
        response.once('end', () => {
          if (response.statusCode === 200) resolve(body);
          else reject(new Error(`status ${response.statusCode}`));
        });
      },
    );
    request.once('timeout', () => request.destroy(new Error('no answer in time')));
    request.once('error', (error) => {
      reject(request.reusedSocket ? new Error(`on a kept connection: ${error.message}`) : error);
    });
  });
}
