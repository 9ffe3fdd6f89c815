/** Cuts a byte stream into frames of a four-byte length and that many bytes. */
export interface Framer {
  push(chunk: Buffer): void;
  /** Forgets what is left of an unfinished frame: to be called whenever the connection changes. */
  reset(): void;
}

/** The longest reply imaginable (a hundred thousand children with long names) is a tenth of this. */
const MAX_FRAME_BYTES = 256 * 1024 * 1024;

/**
 * Hands every whole frame, length included, to `onFrame`. Copies a frame only when it arrives in several chunks, and
 * then once: the library's own way (concatenate the rest for every packet) is quadratic (reference B16).
 * A length below zero or beyond reason is no frame at all and goes to `onGarbage`: waiting for the rest of it would
 * never end, since every byte that comes looks like life. `onFrame` may call `reset`.
 */
export function createFramer(onFrame: (frame: Buffer) => void, onGarbage: () => void): Framer {
  let chunks: Buffer[] = [];
  let have = 0;
  let life = 0;

  function reset(): void {
    chunks = [];
    have = 0;
    life += 1;
  }

  function joined(): Buffer | undefined {
    if (have < 4) return undefined;
    const first = chunks[0];
    if (first === undefined) return undefined;
    if (first.length < 4) chunks = [Buffer.concat(chunks, have)];
    const size = (chunks[0] ?? first).readInt32BE(0) + 4;
    if (isSize(size) && have < size) return undefined;
    const whole = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, have);
    chunks = [];
    have = 0;
    return whole;
  }

  return {
    reset,
    push(chunk) {
      chunks.push(chunk);
      have += chunk.length;
      const buffer = joined();
      if (buffer === undefined) return;
      const mine = life;
      let offset = 0;
      while (buffer.length - offset >= 4) {
        const size = buffer.readInt32BE(offset) + 4;
        if (!isSize(size)) {
          reset();
          onGarbage();
          return;
        }
        if (buffer.length - offset < size) break;
        onFrame(buffer.subarray(offset, offset + size));
        if (life !== mine) return;
        offset += size;
      }
      if (offset < buffer.length) {
        chunks = [buffer.subarray(offset)];
        have = buffer.length - offset;
      }
    },
  };
}

function isSize(size: number): boolean {
  return size >= 4 && size <= MAX_FRAME_BYTES;
}
