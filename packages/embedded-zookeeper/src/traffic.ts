/** Counters of the whole server. */
export interface Traffic {
  received: number;
  sent: number;
  connections: number;
}
