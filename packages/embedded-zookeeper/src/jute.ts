/** The bytes do not hold what the protocol says they hold. */
export class MalformedInput extends Error {
  override readonly name = 'MalformedInput';
}

/** Reads jute, ZooKeeper's serialisation. Every read is checked against the end: short input throws MalformedInput. */
export class JuteReader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  #take(count: number): number {
    if (count > this.remaining) throw new MalformedInput(`needs ${count} bytes, has ${this.remaining}`);
    const start = this.#offset;
    this.#offset += count;
    return start;
  }

  int(): number {
    return this.#bytes.readInt32BE(this.#take(4));
  }

  long(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8));
  }

  boolean(): boolean {
    return this.#bytes[this.#take(1)] !== 0;
  }

  /** The length before a string or a buffer; -1 means null. */
  #length(): number {
    const length = this.int();
    if (length < -1) throw new MalformedInput(`unreasonable length ${length}`);
    return length;
  }

  string(): string | null {
    const length = this.#length();
    if (length === -1) return null;
    const start = this.#take(length);
    return this.#bytes.toString('utf8', start, start + length);
  }

  /** A copy, so that what is kept does not hold on to the chunk it arrived in. */
  buffer(): Buffer | null {
    const length = this.#length();
    if (length === -1) return null;
    const start = this.#take(length);
    return Buffer.from(this.#bytes.subarray(start, start + length));
  }

  /** Null for a null vector. A length of less than -1 is an empty one, as in the Java server. */
  vector<T>(readItem: (reader: JuteReader) => T): T[] | null {
    const length = this.int();
    if (length === -1) return null;
    if (length > this.remaining) throw new MalformedInput(`a vector of ${length} items cannot fit`);
    const items: T[] = [];
    for (let index = 0; index < length; index++) items.push(readItem(this));
    return items;
  }
}

/** Writes jute into one growing buffer. `reserved` bytes are left free in front, for the header that is known last. */
export class JuteWriter {
  readonly #reserved: number;
  #bytes: Buffer;
  #length: number;

  constructor(reserved: number) {
    this.#reserved = reserved;
    this.#bytes = Buffer.allocUnsafe(256);
    this.#length = reserved;
  }

  #grow(count: number): number {
    const start = this.#length;
    const needed = start + count;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, start);
      this.#bytes = larger;
    }
    this.#length = needed;
    return start;
  }

  int(value: number): this {
    const start = this.#grow(4);
    this.#bytes.writeInt32BE(value, start);
    return this;
  }

  long(value: bigint): this {
    const start = this.#grow(8);
    this.#bytes.writeBigInt64BE(value, start);
    return this;
  }

  boolean(value: boolean): this {
    const start = this.#grow(1);
    this.#bytes[start] = value ? 1 : 0;
    return this;
  }

  string(value: string | null): this {
    if (value === null) return this.int(-1);
    const size = Buffer.byteLength(value);
    this.int(size);
    const start = this.#grow(size);
    this.#bytes.write(value, start, size, 'utf8');
    return this;
  }

  buffer(value: Buffer | null): this {
    if (value === null) return this.int(-1);
    this.int(value.length);
    const start = this.#grow(value.length);
    value.copy(this.#bytes, start);
    return this;
  }

  strings(values: Iterable<string>, count: number): this {
    this.int(count);
    for (const value of values) this.string(value);
    return this;
  }

  /** Forgets everything but the reserved bytes. */
  clear(): void {
    this.#length = this.#reserved;
  }

  /** The reserved bytes and all that was written. Valid until the next write. */
  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}
