import type { Output } from '../output.ts';
import { createHaproxyOutput, type HaproxyOutput, type HaproxyOutputOptions } from './haproxy.ts';

/** Everything that is kept in step with the services. HAProxy always is. */
export interface Outputs {
  readonly haproxy: HaproxyOutput;
  readonly all: readonly Output[];
}

export function createOutputs(options: { readonly haproxy: HaproxyOutputOptions }): Outputs {
  const haproxy = createHaproxyOutput(options.haproxy);
  return { haproxy, all: [haproxy] };
}
