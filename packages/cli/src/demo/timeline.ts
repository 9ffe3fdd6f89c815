/** The demo's output: what happens, and when routing followed, in seconds since the start. */
export interface Timeline {
  /** A thing that the demo does. */
  act(text: string): void;
  /** What followed from it. */
  follow(text: string): void;
  /** A line without a time. */
  say(text: string): void;
}

export function createTimeline(write: (text: string) => void, isColoured: boolean): Timeline {
  const startedAt = performance.now();
  const paint = (code: number, text: string) => (isColoured ? `\u001B[${code}m${text}\u001B[0m` : text);
  const stamp = () => paint(90, `${((performance.now() - startedAt) / 1000).toFixed(3).padStart(8)} s`);
  return {
    act: (text) => write(`${stamp()}  ${paint(1, text)}\n`),
    follow: (text) => write(`${stamp()}    ${paint(32, '->')} ${text}\n`),
    say: (text) => write(`${text}\n`),
  };
}
