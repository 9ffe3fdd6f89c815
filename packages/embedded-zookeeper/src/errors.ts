/** Error codes of the protocol, as in KeeperException.Code of the Java client. */
export const ErrorCode = {
  ok: 0,
  runtimeInconsistency: -2,
  marshalling: -5,
  unimplemented: -6,
  badArguments: -8,
  noNode: -101,
  badVersion: -103,
  noChildrenForEphemerals: -108,
  nodeExists: -110,
  notEmpty: -111,
  invalidAcl: -114,
  authFailed: -115,
  noWatcher: -121,
} as const;
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** A request is refused, with the code that its sender gets. */
export class RequestRefused extends Error {
  override readonly name = 'RequestRefused';
  readonly code: ErrorCode;

  constructor(code: ErrorCode) {
    super(`ZooKeeper error ${code}`);
    this.code = code;
  }
}
