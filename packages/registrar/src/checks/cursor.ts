/**
 * Reads a message from its beginning to its end. Whoever reads beyond the end gets zeros and nothing; that the message
 * was too short shows in `isSound`, so that it is asked once, at the end.
 */
export interface Cursor {
  readonly isSound: boolean;
  /** How many bytes are left. */
  readonly left: number;
  /** An unsigned number. */
  uint(bytes: 1 | 2 | 4, order?: 'little'): number;
  bytes(count: number): Buffer;
  /** Text up to a zero byte, which is passed over. */
  text(): string;
}

export function createCursor(message: Buffer): Cursor {
  let at = 0;
  let isSound = true;
  function take(count: number): Buffer {
    if (count > message.length - at) {
      isSound = false;
      at = message.length;
      return Buffer.alloc(0);
    }
    const taken = message.subarray(at, at + count);
    at += count;
    return taken;
  }
  return {
    get isSound() {
      return isSound;
    },
    get left() {
      return message.length - at;
    },
    uint(bytes, order) {
      const taken = take(bytes);
      if (taken.length === 0) return 0;
      return order === 'little' ? taken.readUIntLE(0, bytes) : taken.readUIntBE(0, bytes);
    },
    bytes: take,
    text() {
      const end = message.indexOf(0, at);
      const text = take(end === -1 ? message.length + 1 : end - at).toString('utf8');
      take(end === -1 ? 0 : 1);
      return text;
    },
  };
}
