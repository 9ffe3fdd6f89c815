import type { Check, CheckConfig, CheckContext, ProbeResult } from '@tandem/registrar';

/** A check whose results the test decides while it runs. */
export interface ScriptedCheck extends Check {
  /** What the next probes do; `hang` ends only with its signal, `ignore` not even then. */
  result: 'pass' | 'fail' | 'hang' | 'ignore' | 'explode';
  readonly probes: number;
  /** The most probes that were ever under way at the same time. */
  readonly concurrent: number;
  readonly underWay: number;
}

export function createScriptedCheck(result: ScriptedCheck['result'], takesMs = 0): ScriptedCheck {
  let underWay = 0;
  const check = {
    kind: 'scripted',
    result,
    probes: 0,
    concurrent: 0,
    get underWay() {
      return underWay;
    },
    async probe(signal: AbortSignal): Promise<ProbeResult> {
      check.probes += 1;
      underWay += 1;
      check.concurrent = Math.max(check.concurrent, underWay);
      try {
        return await answer(check.result, takesMs, signal);
      } finally {
        underWay -= 1;
      }
    },
  };
  return check;
}

async function answer(
  result: ScriptedCheck['result'],
  takesMs: number,
  signal: AbortSignal,
): Promise<ProbeResult> {
  switch (result) {
    case 'pass':
    case 'fail':
      await new Promise((resolve) => {
        if (takesMs === 0) setImmediate(resolve);
        else setTimeout(resolve, takesMs);
      });
      return result === 'pass' ? { ok: true } : { ok: false, reason: 'scripted' };
    case 'explode':
      throw new Error('boom');
    case 'hang':
      return new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve({ ok: false, reason: 'called off' }), { once: true });
      });
    case 'ignore':
      return new Promise(() => {});
  }
}

/** Finds scripted checks by the port that a configured tcp check names. */
export function scriptedBy(
  checks: Readonly<Record<number, Check>>,
): (config: CheckConfig, context: CheckContext) => Check {
  return (config, context) => {
    const port = config.kind === 'tcp' ? (config.options.port ?? context.port) : context.port;
    const check = checks[port];
    if (check === undefined) throw new Error(`no check is scripted for port ${port}`);
    return check;
  };
}
