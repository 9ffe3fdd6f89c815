/** What HAProxy says, and what to do about it where its words leave that open. */
export function explainComplaint(complaint: string): string {
  const needed = /Cannot raise FD limit to (\d+)/.exec(complaint)?.[1];
  if (needed === undefined) return complaint;
  return `${complaint}. Allow it ${needed} open files (LimitNOFILE of the unit, ulimit -n), or lower maxconn in haproxy.global`;
}
