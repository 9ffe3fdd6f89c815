import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';

import { sleep, withDeadline } from '@tandem/core';
import type { Check, ProbeResult } from '@tandem/registrar';

import { nextTurn, startByteProxy } from '../support/byte-proxy.ts';

/** A check and the thing it looks at. */
export interface CheckSubject {
  readonly check: Check;
  /** How much of the probes is still there: connections at the other end, living processes. */
  readonly leftovers: () => number;
  readonly close: () => Promise<void>;
}

/** How to make one kind of check meet each kind of service. */
export interface CheckHarness {
  healthy(): Promise<CheckSubject>;
  /** Nobody is there: refuses the connection, does not exist. */
  absent(): Promise<CheckSubject>;
  /** Takes the probe and never gives an answer. `begun` resolves when it has taken one. */
  hanging(): Promise<CheckSubject & { begun: () => Promise<void> }>;
  /** For kinds that need an answer over a connection: a healthy service, and the check at a port of the loopback. */
  readonly wire?: {
    serve(): Promise<{ readonly port: number; readonly close: () => Promise<void> }>;
    checkAt(port: number): Check;
  };
  /** How many probes in a row show that nothing is left behind. Default: a thousand. */
  readonly manyProbes?: number;
}

/** What no service says that is well. */
const GARBAGE: Readonly<Record<string, Buffer>> = {
  nothing: Buffer.alloc(0),
  zeros: Buffer.alloc(4096),
  ones: Buffer.alloc(4096, 0xff),
  text: Buffer.from('no such thing here\r\n\r\n'),
  'a page of another server': Buffer.from('HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n'),
  'an alert of TLS': Buffer.from('15030300020246', 'hex'),
  'a huge length': Buffer.from('7fffffff7fffffff7fffffff', 'hex'),
};

/** What every kind of check must do, whatever it probes. */
export function checkConformance(kind: string, harness: CheckHarness): void {
  test(`${kind}: passes against a healthy service, again and again`, async () => {
    await using subject = disposable(await harness.healthy());
    const { signal } = new AbortController();
    for (let round = 0; round < 3; round += 1) {
      assert.deepEqual(await subject.check.probe(signal), { ok: true });
    }
    await nothingLeft(subject);
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: fails with a reason, not an exception, when nobody is there`, async () => {
    await using subject = disposable(await harness.absent());
    const { signal } = new AbortController();
    const result = await subject.check.probe(signal);
    assert.equal(result.ok, false);
    assert.match(reasonOf(result), /\w/);
    await nothingLeft(subject);
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: ends with its signal when the service hangs, and leaves nothing behind`, async () => {
    await using subject = disposable(await harness.hanging());
    const controller = new AbortController();
    const probe = subject.check.probe(controller.signal);
    await subject.begun();
    controller.abort();
    assert.equal((await probe).ok, false);
    await nothingLeft(subject);
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: fails without trying when its signal has ended before`, async () => {
    await using subject = disposable(await harness.healthy());
    assert.equal((await subject.check.probe(AbortSignal.abort())).ok, false);
    assert.equal(subject.leftovers(), 0);
  });

  const many = harness.manyProbes ?? 1000;
  test(`${kind}: leaves nothing behind in ${many} probes`, async () => {
    await using subject = disposable(await harness.healthy());
    const { signal } = new AbortController();
    await subject.check.probe(signal);
    await nothingLeft(subject);
    const before = resources();
    for (let round = 0; round < many; round += 1)
      assert.deepEqual(await subject.check.probe(signal), { ok: true });
    await nothingLeft(subject);
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
    await until(() => resources() <= before, 'a socket, a process or a timer stays');
  });

  test(`${kind}: ends with its signal at whatever moment that ends, and leaves nothing behind`, async () => {
    await using subject = disposable(await harness.healthy());
    // The later the less often, until a probe is faster than its end.
    for (let turns = 0, isOver = false; !isOver; turns += 1 + (turns >> 3)) {
      const controller = new AbortController();
      const probe = subject.check.probe(controller.signal);
      for (let turn = 0; turn < turns; turn += 1) await nextTurn();
      controller.abort();
      isOver = (await probe).ok;
      assert.equal(getEventListeners(controller.signal, 'abort').length, 0, 'a listener stays on the signal');
    }
    await nothingLeft(subject);
  });

  if (harness.wire !== undefined) wireConformance(kind, harness.wire);

  test(`${kind}: names itself`, async () => {
    await using subject = disposable(await harness.healthy());
    assert.equal(subject.check.kind, kind);
  });
}

/** What every kind must do that needs an answer, however it comes. */
function wireConformance(kind: string, wire: NonNullable<CheckHarness['wire']>): void {
  test(`${kind}: passes when the answer comes byte by byte`, async () => {
    await using service = closing(await wire.serve());
    await using proxy = closing(await startByteProxy(service.port));
    assert.deepEqual(await wire.checkAt(proxy.port).probe(new AbortController().signal), { ok: true });
    await until(() => proxy.open() === 0, 'a connection stays');
  });

  test(`${kind}: ends by its deadline when the answer comes byte by byte, and slowly`, async () => {
    await using service = closing(await wire.serve());
    await using proxy = closing(await startByteProxy(service.port, 200));
    const outer = new AbortController();
    const check = wire.checkAt(proxy.port);
    await assert.rejects(
      withDeadline(outer.signal, 300, async (signal) => {
        const result = await check.probe(signal);
        assert.equal(result.ok, false);
        signal.throwIfAborted();
        assert.fail(`ended before its deadline: ${reasonOf(result)}`);
      }),
      { code: 'DEADLINE_EXCEEDED' },
    );
    await until(() => proxy.open() === 0, 'a connection stays');
  });

  for (const [name, bytes] of Object.entries(GARBAGE)) {
    test(`${kind}: fails with a reason when the answer is garbage: ${name}`, async () => {
      await using service = closing(await startGarbage(bytes));
      const { signal } = new AbortController();
      const result = await wire.checkAt(service.port).probe(signal);
      assert.equal(result.ok, false);
      assert.match(reasonOf(result), /\w/);
      // What a peer says ends up in logs and on terminals.
      // oxlint-disable-next-line no-control-regex
      assert.doesNotMatch(reasonOf(result), /[\x00-\x1f\x7f-\x9f]/);
      await until(() => service.open() === 0, 'a connection stays');
      assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
    });
  }
}

/** Says the same to everybody at once, and hangs up. */
async function startGarbage(bytes: Buffer) {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.resume();
    socket.end(bytes);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as net.AddressInfo).port,
    open: () => sockets.size,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function closing<T extends { readonly close: () => Promise<void> }>(thing: T): T & AsyncDisposable {
  return { ...thing, [Symbol.asyncDispose]: () => thing.close() };
}

/** What keeps this process busy, but for timers that others may have. */
function resources(): number {
  return process.getActiveResourcesInfo().filter((name) => /^(TCP|Pipe|Process|TLS|Timeout)/.test(name))
    .length;
}

function reasonOf(result: ProbeResult): string {
  return result.ok ? '' : result.reason;
}

function disposable<T extends CheckSubject>(subject: T): T & AsyncDisposable {
  return { ...subject, [Symbol.asyncDispose]: () => subject.close() };
}

/** The other end learns of a closed connection a moment later. */
async function nothingLeft(subject: CheckSubject): Promise<void> {
  await until(() => subject.leftovers() <= 0, 'something is left behind');
}

async function until(condition: () => boolean, otherwise: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, otherwise);
    await sleep(2);
  }
}
