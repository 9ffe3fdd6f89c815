import { type Log, messageOf, writeFileAtomic } from '@tandem/core';

import type { Membership } from './membership.ts';
import { converse } from './runtime.ts';
import type { Structure } from './structure.ts';

/**
 * Carries what HAProxy's own checks have found across a reload of ours: a new worker takes every server for healthy
 * until its first check, and sends it requests. HAProxy reads the file whenever it starts, so what it says stands
 * there only while a reload is under way.
 *
 * Of what HAProxy can take from such a file, only servers that are down are written: a drain or a weight of the past
 * would contradict haproxy.cfg. It would take the port, too, even one that the configuration has changed (HAProxy
 * reference 1.6); a server's name holds its address and port, so that a server with another port is not in the file.
 * Nor is one whose options have changed.
 */
export interface KeptHealth {
  keep(backends: readonly string[], signal: AbortSignal): Promise<void>;
  forget(): Promise<void>;
}

const HEADER =
  '1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n';

/** Neither can fail a reload: problems are logged. The template names the same file. */
export function createKeptHealth(runtimeSocket: string, log: Log): KeptHealth {
  const file = `${runtimeSocket}.state`;

  async function write(lines: readonly string[]): Promise<void> {
    try {
      await writeFileAtomic(file, HEADER + lines.map((line) => `${line}\n`).join(''), { mode: 0o640 });
    } catch (error) {
      log.warn({ file, err: messageOf(error) }, 'cannot write down which servers are down');
    }
  }

  return {
    async keep(backends, signal) {
      if (backends.length === 0) return;
      try {
        const answers = await converse(
          runtimeSocket,
          backends.map((backend) => `show servers state ${backend}`),
          signal,
        );
        await write(answers.flatMap(downServers));
      } catch (error) {
        signal.throwIfAborted();
        log.warn({ err: messageOf(error) }, 'cannot find out which servers are down');
      }
    },
    forget: () => write([]),
  };
}

/** Stopped (`srv_op_state` 0) by a check: neither drained nor in maintenance (`srv_admin_state`; 4 is only a note). */
export function downServers(answer: string): string[] {
  return answer.split('\n').filter((line) => {
    const { 0: backendId = '', 5: operational, 6: administrative, length } = line.split(' ');
    return (
      /^\d+$/.test(backendId) && length >= 19 && operational === '0' && (Number(administrative) & ~4) === 0
    );
  });
}

/** The backends with checks whose servers are written as they were before. */
export function backendsWithKeptHealth(
  before: Structure | undefined,
  after: Structure,
  membership: Membership,
): string[] {
  const former = new Map(before?.proxies.map(({ name, serverOptions }) => [name, serverOptions]));
  return after.proxies
    .filter(({ name, serverOptions }) => former.get(name) === serverOptions)
    .filter(
      ({ name, serverOptions }) =>
        isChecked(serverOptions) || membership.get(name)?.some(({ options }) => isChecked(options)) === true,
    )
    .map(({ name }) => name);
}

function isChecked(options: string): boolean {
  return /(^| )(agent-)?check( |$)/.test(options);
}
