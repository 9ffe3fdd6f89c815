import { MalformedInput } from './jute.ts';

/** Cuts a byte stream into length-prefixed frames. Bytes are joined at most once per frame that spans chunks. */
export class FrameReader {
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The frames that this chunk completes. Throws MalformedInput, after those before it, at a length out of range. */
  *push(chunk: Buffer): Generator<Buffer> {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size < this.#wanted()) return;

    const bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#size);
    let offset = 0;
    while (bytes.length - offset >= 4) {
      const length = this.#frameLength(bytes, offset);
      if (bytes.length - offset < 4 + length) break;
      yield bytes.subarray(offset + 4, offset + 4 + length);
      offset += 4 + length;
    }
    const rest = bytes.subarray(offset);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#size = rest.length;
  }

  /** How many bytes there must be before joining them pays. */
  #wanted(): number {
    if (this.#size < 4) return 4;
    const [first = Buffer.alloc(0)] = this.#chunks;
    if (first.length < 4) this.#chunks = [Buffer.concat(this.#chunks, this.#size)];
    return 4 + this.#frameLength(this.#chunks[0] ?? first, 0);
  }

  #frameLength(bytes: Buffer, offset: number): number {
    const length = bytes.readInt32BE(offset);
    if (length < 0 || length > this.#maxBytes) throw new MalformedInput(`unreasonable length ${length}`);
    return length;
  }
}
