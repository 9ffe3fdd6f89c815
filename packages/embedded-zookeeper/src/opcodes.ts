/** Request types of the protocol, as in ZooDefs.OpCode of the Java server. */
export const Opcode = {
  create: 1,
  delete: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  getAcl: 6,
  setAcl: 7,
  getChildren: 8,
  sync: 9,
  ping: 11,
  getChildren2: 12,
  check: 13,
  multi: 14,
  create2: 15,
  checkWatches: 17,
  removeWatches: 18,
  createContainer: 19,
  createTtl: 21,
  multiRead: 22,
  auth: 100,
  setWatches: 101,
  getEphemerals: 103,
  getAllChildrenNumber: 104,
  setWatches2: 105,
  addWatch: 106,
  whoAmI: 107,
  closeSession: -11,
  /** Only in answers: the type of a failed step of a multi, and of the end mark. */
  error: -1,
} as const;

/** What the servers of a generation know: those of 3.5 had no persistent watches and no reads in one go. */
export type Generation = '3.5' | '3.9';

const SINCE_3_6: ReadonlySet<number> = new Set([
  Opcode.multiRead,
  Opcode.getEphemerals,
  Opcode.getAllChildrenNumber,
  Opcode.setWatches2,
  Opcode.addWatch,
  Opcode.whoAmI,
]);

export function isOfGeneration(opcode: number, generation: Generation): boolean {
  return generation === '3.9' || !SINCE_3_6.has(opcode);
}

/** Values of the xid that are not a request's own number. */
export const Xid = { notification: -1, ping: -2 } as const;

export const EventType = { created: 1, deleted: 2, dataChanged: 3, childrenChanged: 4 } as const;
export type EventType = (typeof EventType)[keyof typeof EventType];
