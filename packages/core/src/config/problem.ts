/** One mistake in a configuration file, told to the person who must mend it. */
export interface ConfigProblem {
  readonly file: string;
  /** 1-based; undefined when the file as a whole is at fault. */
  readonly line?: number;
  readonly column?: number;
  /** Where in the document, such as `register.checks[0].http.interval`; empty at the top. */
  readonly path: string;
  readonly reason: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** `web.yaml:10:11: register.port: must be a number, found "80a"` */
export function formatProblem(problem: ConfigProblem): string {
  const place = [problem.file, problem.line, problem.column].filter((part) => part !== undefined).join(':');
  const path = problem.path === '' ? '' : `${problem.path}: `;
  const remedy = problem.remedy === undefined ? '' : `. ${problem.remedy}`;
  return `${place}: ${path}${problem.reason}${remedy}`;
}

/** Expected outcomes are values: a file either has a meaning or a list of problems. */
export type Loaded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

/** The known word nearest to a mistyped one, if it is near enough to be worth a question. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const limit = word.length <= 3 ? 1 : 2;
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance <= limit && (best === undefined || distance < best.distance)) best = { candidate, distance };
  }
  return best?.candidate;
}

/** Insertions, deletions, replacements and swaps of neighbours, one each. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, replace);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (beforePrevious[j - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}
