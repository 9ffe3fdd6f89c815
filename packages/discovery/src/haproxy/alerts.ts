/** What HAProxy complains of, and where. */
export interface Place {
  readonly alert: string;
  /** The title line, such as `backend web`. */
  readonly section: string;
  /** Undefined when it is not about one server. */
  readonly server: string | undefined;
}

/**
 * The places of a file that HAProxy's complaints name: by the number of a line, or by the names of a section and a
 * server. What names none is passed over.
 */
export function placesIn(complaint: string, text: string): Place[] {
  const lines = text.split('\n');
  return complaint.split('\n').flatMap((alert): Place[] => {
    const number = Number(/\[[^\]\s]*:(\d+)\]/.exec(alert)?.[1] ?? 0);
    if (number > 0) {
      const section = lines.slice(0, number).findLast((line) => /^[A-Za-z]/.test(line));
      const server = /^\s*server (\S+)/.exec(lines[number - 1] ?? '')?.[1];
      return section === undefined ? [] : [{ alert, section, server }];
    }
    const [, kind, name] = /\b(frontend|backend) '([^']+)'/.exec(alert) ?? [];
    if (kind === undefined || name === undefined) return [];
    return [{ alert, section: `${kind} ${name}`, server: /\bserver '([^']+)'/.exec(alert)?.[1] }];
  });
}
