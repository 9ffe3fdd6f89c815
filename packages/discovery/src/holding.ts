import type { InstanceId } from '@tandem/core';

/** What becomes of an operator's wish to hold or release an instance. */
export type HoldAnswer =
  | {
      readonly ok: true;
      readonly instance: InstanceId;
      /** False when the disk does not take it: it is in force until the daemon ends. */
      readonly remembered: boolean;
    }
  | {
      readonly ok: false;
      readonly reason: 'unknown-service' | 'unknown-instance' | 'ambiguous-instance' | 'not-held';
      /** What could have been meant: services, or instances of the service. */
      readonly candidates: readonly string[];
    };

/**
 * The instances that an operator means: by the whole id, else by the name or the endpoint, else by any part. Only one
 * is unambiguous.
 */
export function findInstances(text: string, ids: readonly InstanceId[]): readonly InstanceId[] {
  if (text === '') return [];
  const ways: readonly ((id: InstanceId) => boolean)[] = [
    (id) => id === text,
    (id) => id.startsWith(`${text}_`) || id.endsWith(`_${text}`),
    (id) => id.includes(text),
  ];
  for (const isMeant of ways) {
    const found = ids.filter(isMeant);
    if (found.length > 0) return found;
  }
  return [];
}
