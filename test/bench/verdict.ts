/** Says how a figure stands to its budget; the benchmark exits with 1 when one is over. */
export function judge(what: string, value: number, limit: number, unit: string): void {
  const isOver = !(value <= limit);
  if (isOver) process.exitCode = 1;
  console.log(`${isOver ? 'OVER' : 'ok  '}  ${what}: ${value.toFixed(2)} ${unit} (budget ${limit} ${unit})`);
}
