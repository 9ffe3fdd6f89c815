/** ZooKeeper's serialisation: big-endian numbers, length-prefixed text and buffers, counted vectors. */

export class JuteReader {
  readonly #buffer: Buffer;
  #offset: number;

  constructor(buffer: Buffer, offset = 0) {
    this.#buffer = buffer;
    this.#offset = offset;
  }

  /** Throws a RangeError past the end, as every reader here does. */
  int(): number {
    const value = this.#buffer.readInt32BE(this.#offset);
    this.#offset += 4;
    return value;
  }

  long(): bigint {
    const value = this.#buffer.readBigInt64BE(this.#offset);
    this.#offset += 8;
    return value;
  }

  bool(): boolean {
    const value = this.#buffer.readUInt8(this.#offset);
    this.#offset += 1;
    return value !== 0;
  }

  bytes(): Buffer | undefined {
    const start = this.#skipBuffer();
    return start === undefined ? undefined : this.#buffer.subarray(start, this.#offset);
  }

  /** Without a buffer in between: lists of names are nearly all that is ever read. */
  text(): string {
    const start = this.#skipBuffer();
    return start === undefined ? '' : this.#buffer.toString('utf8', start, this.#offset);
  }

  /** Where it starts, with the offset behind its end; undefined for a null. */
  #skipBuffer(): number | undefined {
    const length = this.int();
    if (length < 0) return undefined;
    const start = this.#offset;
    if (start + length > this.#buffer.length)
      throw new RangeError('a buffer reaches past the end of its frame');
    this.#offset = start + length;
    return start;
  }

  vector<T>(read: (reader: this) => T): T[] {
    const length = this.int();
    const items: T[] = [];
    for (let index = 0; index < length; index += 1) items.push(read(this));
    return items;
  }
}

export class JuteWriter {
  readonly #parts: Buffer[] = [];

  int(value: number): this {
    const buffer = Buffer.allocUnsafe(4);
    buffer.writeInt32BE(value);
    this.#parts.push(buffer);
    return this;
  }

  long(value: bigint): this {
    const buffer = Buffer.allocUnsafe(8);
    buffer.writeBigInt64BE(value);
    this.#parts.push(buffer);
    return this;
  }

  bool(value: boolean): this {
    this.#parts.push(Buffer.from([value ? 1 : 0]));
    return this;
  }

  bytes(value: Buffer): this {
    this.int(value.length);
    this.#parts.push(value);
    return this;
  }

  text(value: string): this {
    return this.bytes(Buffer.from(value));
  }

  vector<T>(items: readonly T[], write: (writer: this, item: T) => void): this {
    this.int(items.length);
    for (const item of items) write(this, item);
    return this;
  }

  toBuffer(): Buffer {
    return Buffer.concat(this.#parts);
  }

  /** With the four bytes of length in front, as it goes over the wire. */
  toFrame(): Buffer {
    const body = this.toBuffer();
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(body.length);
    return Buffer.concat([length, body]);
  }
}
