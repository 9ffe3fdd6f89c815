import { MalformedInput } from './jute.ts';

/** Cuts a byte stream into length-prefixed frames. Bytes are joined once per frame that spans chunks, not once per chunk. */
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

    const bytes = this.#join();
    let offset = 0;
    while (bytes.length - offset >= 4) {
      const length = this.#frameLength(bytes, offset);
      if (bytes.length - offset < 4 + length) break;
      yield bytes.subarray(offset + 4, offset + 4 + length);
      offset += 4 + length;
    }
    this.#chunks = offset === bytes.length ? [] : [bytes.subarray(offset)];
    this.#size = bytes.length - offset;
  }

  /** How many bytes there must be before joining them pays. */
  #wanted(): number {
    if (this.#size < 4) return 4;
    const [first] = this.#chunks;
    return 4 + this.#frameLength(first !== undefined && first.length >= 4 ? first : this.#join(), 0);
  }

  #join(): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && this.#chunks.length === 1) return first;
    const bytes = Buffer.concat(this.#chunks, this.#size);
    this.#chunks = [bytes];
    return bytes;
  }

  #frameLength(bytes: Buffer, offset: number): number {
    const length = bytes.readInt32BE(offset);
    if (length < 0 || length > this.#maxBytes) throw new MalformedInput(`unreasonable length ${length}`);
    return length;
  }
}
