import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createFramer } from '@tandem/registry/testing';
import * as fc from 'fast-check';

function frame(body: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length);
  return Buffer.concat([length, body]);
}

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let offset = 0;
  for (let index = 0; offset < bytes.length; index += 1) {
    const size = sizes.length === 0 ? bytes.length : (sizes[index % sizes.length] ?? 1);
    chunks.push(bytes.subarray(offset, offset + size));
    offset += size;
  }
  return chunks;
}

function noGarbage(): void {
  assert.fail('this was no garbage');
}

test('framer: the frames are the same however the bytes are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 8 }),
      (bodies, sizes) => {
        const frames = bodies.map(frame);
        const seen: string[] = [];
        const framer = createFramer((bytes) => seen.push(bytes.toString('hex')), noGarbage);
        for (const chunk of cut(Buffer.concat(frames), sizes)) framer.push(chunk);
        assert.deepEqual(
          seen,
          frames.map((bytes) => bytes.toString('hex')),
        );
      },
    ),
  );
});

test('framer: after a reset the rest of an unfinished frame is not put before the next connection', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.nat(), (body, at) => {
      const seen: Buffer[] = [];
      const framer = createFramer((bytes) => seen.push(bytes), noGarbage);
      const whole = frame(body);
      framer.push(whole.subarray(0, at % whole.length));
      framer.reset();
      framer.push(whole);
      assert.deepEqual(seen, [whole]);
    }),
  );
});

test('framer: a reset while a frame is taken drops what followed it in the same chunk', () => {
  const seen: number[] = [];
  const framer = createFramer((bytes) => {
    seen.push(bytes.length);
    if (bytes.length === 6) framer.reset();
  }, noGarbage);
  framer.push(
    Buffer.concat([frame(Buffer.alloc(1)), frame(Buffer.alloc(2)), frame(Buffer.alloc(3)), Buffer.alloc(2)]),
  );
  framer.push(frame(Buffer.alloc(4)));
  assert.deepEqual(seen, [5, 6, 8]);
});

for (const [what, length] of [
  ['negative', -1],
  ['as low as it gets', -0x8000_0000],
  ['beyond reason', 0x7fff_ffff],
  ['the beginning of "HTTP"', Buffer.from('HTTP').readInt32BE(0)],
] as const) {
  test(`framer: a length that is ${what} is garbage, and told at once`, () => {
    for (const size of [1, 2, 8]) {
      let frames = 0;
      let garbage = 0;
      const framer = createFramer(
        () => void (frames += 1),
        () => void (garbage += 1),
      );
      const bytes = Buffer.alloc(8);
      bytes.writeInt32BE(length);
      for (const chunk of cut(Buffer.concat([frame(Buffer.alloc(3)), bytes]), [size])) {
        if (garbage === 0) framer.push(chunk);
      }
      assert.deepEqual([frames, garbage], [1, 1]);
    }
  });
}

test('framer: a large frame in many chunks is copied once, not once per chunk', () => {
  const concat = Buffer.concat.bind(Buffer);
  let copied = 0;
  Buffer.concat = (list: readonly Uint8Array[], total?: number) => {
    const joined = concat(list, total);
    copied += joined.length;
    return joined;
  };
  try {
    const whole = frame(Buffer.alloc(8 * 1024 * 1024, 1));
    copied = 0;
    let frames = 0;
    const framer = createFramer(() => (frames += 1), noGarbage);
    for (const chunk of cut(whole, [1024])) framer.push(chunk);
    assert.equal(frames, 1);
    assert.ok(copied <= 2 * whole.length, `${copied} bytes copied for ${whole.length}`);
  } finally {
    Buffer.concat = concat;
  }
});

test('framer: many small frames in one chunk are not copied at all', () => {
  const chunk = Buffer.concat(Array.from({ length: 1000 }, () => frame(Buffer.alloc(20))));
  let frames = 0;
  const framer = createFramer((bytes) => {
    frames += 1;
    assert.equal(bytes.buffer, chunk.buffer);
  }, noGarbage);
  framer.push(chunk);
  assert.equal(frames, 1000);
});
