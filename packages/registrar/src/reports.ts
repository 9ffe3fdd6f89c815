/** What a service says of itself. A warning is shown, and counts as a pass. */
export interface Report {
  readonly status: 'pass' | 'warn' | 'fail';
  readonly reason?: string;
}

export type ReportAnswer =
  | { readonly ok: true; readonly check: string }
  | {
      readonly ok: false;
      /** `unknown-check`: several take reports under other names, and one of them has to be named. */
      readonly reason: 'unknown-service' | 'unknown-check';
      /** What could have been meant: services that have a push check, or the names of the checks of this one. */
      readonly candidates: readonly string[];
    };

/** Where one check finds what is reported to it. */
export interface Inbox {
  /**
   * The newest report that was not taken yet: at once if there is one, else the next to come. Undefined when the signal
   * is aborted first; a report that comes then waits for the next call.
   */
  next(signal: AbortSignal): Promise<Report | undefined>;
  /** Nothing is taken for this check any more. */
  close(): void;
}

/** Where services that report themselves meet the checks that wait for it. */
export interface Reports {
  /** Takes a report for a check; may be left out where a service has only one that takes reports. Newest wins. */
  take(service: string, report: Report, check?: string): ReportAnswer;
  /**
   * Opens the inbox of a check. Several of one name each get what comes.
   * @param owner whose check it is; asked for its name whenever a report comes, since services are renamed
   */
  open(owner: { readonly service: string }, check: string): Inbox;
}

/** More than an operator reads, and less than fills a log. */
const MAX_REASON_LENGTH = 500;

export function createReports(): Reports {
  const slots = new Set<Slot>();

  return {
    take(service, report, check) {
      const own = [...slots].filter(({ owner }) => owner.service === service);
      if (own.length === 0)
        return {
          ok: false,
          reason: 'unknown-service',
          candidates: namesOf(slots, ({ owner }) => owner.service),
        };
      const names = namesOf(own, (slot) => slot.check);
      const name = check ?? (names.length === 1 ? names[0] : undefined);
      const meant = own.filter((slot) => slot.check === name);
      if (name === undefined || meant.length === 0)
        return { ok: false, reason: 'unknown-check', candidates: names };
      const kept = withinLimits(report);
      for (const slot of meant) slot.put(kept);
      return { ok: true, check: name };
    },
    open(owner, check) {
      const slot = createSlot(owner, check);
      slots.add(slot);
      return { next: (signal) => slot.next(signal), close: () => void slots.delete(slot) };
    },
  };
}

function namesOf(slots: Iterable<Slot>, nameOf: (slot: Slot) => string): string[] {
  return [...new Set([...slots].map(nameOf))].toSorted();
}

interface Slot {
  readonly owner: { readonly service: string };
  readonly check: string;
  put(report: Report): void;
  next(signal: AbortSignal): Promise<Report | undefined>;
}

function createSlot(owner: Slot['owner'], check: string): Slot {
  let unread: Report | undefined;
  let wake: (() => void) | undefined;

  function pick(): Report | undefined {
    const report = unread;
    unread = undefined;
    return report;
  }

  return {
    owner,
    check,
    put(report) {
      unread = report;
      wake?.();
    },
    next(signal) {
      if (signal.aborted || unread !== undefined) return Promise.resolve(signal.aborted ? undefined : pick());
      return new Promise((resolve) => {
        const done = () => {
          signal.removeEventListener('abort', done);
          wake = undefined;
          resolve(signal.aborted ? undefined : pick());
        };
        signal.addEventListener('abort', done, { once: true });
        wake = done;
      });
    },
  };
}

/** Whoever reports may be broken itself. What it says goes to logs, tables and terminals. */
function withinLimits({ status, reason }: Report): Report {
  const text = reason
    ?.slice(0, MAX_REASON_LENGTH)
    .replace(/[\p{C}\s]+/gu, ' ')
    .trim();
  return text === undefined || text === '' ? { status } : { status, reason: text };
}
