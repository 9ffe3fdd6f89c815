import http from 'node:http';

/** Steady requests through HAProxy, every single one counted. */
export interface Traffic {
  readonly sent: number;
  readonly answered: number;
  readonly failures: readonly Failure[];
  /** Resolves with the next answer's time (performance.now). */
  nextAnswer(): Promise<number>;
  /** Sends no more, and waits for what is under way. */
  stop(): Promise<void>;
}

export interface Failure {
  /** performance.now() when the request was sent and when it failed. */
  readonly sentAt: number;
  readonly failedAt: number;
  readonly reason: string;
}

const TIMEOUT_MS = 5_000;

/** Half of the requests reuse connections, half open one each: a reload must not hurt either. */
export function startTraffic(options: { port: number; perSecond: number }): Traffic {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 20 });
  const failures: Failure[] = [];
  const underWay = new Set<Promise<void>>();
  let waiting: ((at: number) => void)[] = [];
  let sent = 0;
  let answered = 0;

  function send(): void {
    const sentAt = performance.now();
    sent += 1;
    const request = get({ port: options.port, agent: sent % 2 === 0 ? agent : false });
    const settled = request.then(
      () => {
        answered += 1;
        const listeners = waiting;
        waiting = [];
        for (const listener of listeners) listener(performance.now());
        return undefined;
      },
      (error: Error) => {
        failures.push({ sentAt, failedAt: performance.now(), reason: error.message });
      },
    );
    underWay.add(settled);
    void settled.finally(() => underWay.delete(settled));
  }

  const startedAt = performance.now();
  const timer = setInterval(() => {
    // By the clock and not by the tick: a timer that comes late makes up for it.
    const due = Math.floor(((performance.now() - startedAt) / 1000) * options.perSecond);
    for (let burst = 0; sent < due && burst < options.perSecond / 10; burst += 1) send();
  }, 5);

  return {
    get sent() {
      return sent;
    },
    get answered() {
      return answered;
    },
    failures,
    nextAnswer: () => new Promise((resolve) => waiting.push(resolve)),
    async stop() {
      clearInterval(timer);
      await Promise.all(underWay);
      agent.destroy();
    },
  };
}

function get(options: { port: number; agent: http.Agent | false }): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', path: '/', ...options }, (response) => {
      response.resume();
      response.once('end', () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`status ${response.statusCode}`));
      });
      response.once('error', reject);
    });
    request.setTimeout(TIMEOUT_MS, () => request.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)));
    request.once('error', reject);
  });
}
