import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { codecFor, silentLog } from '@tandem/core';
import { createAnnouncer, type Session } from '@tandem/registry/testing';

test('a path that vanishes whenever it was made is tried again with pauses, not in a loop', async () => {
  const creates: string[] = [];
  const answers: Readonly<Record<string, unknown>> = { list: { children: [], stat: {} } };
  const session = {
    state: { state: 'connected', id: 1n },
    subscribe: () => () => {},
    forgetWatch() {},
    connected: () => Promise.resolve(1n),
    close: () => Promise.resolve(true),
    run: ({ name, path }: { name: string; path: string }) => {
      if (name !== 'create') return Promise.resolve(answers[name]);
      creates.push(path);
      return Promise.resolve(path === '/web' ? { kind: 'created', path } : { kind: 'no-parent' });
    },
  } as unknown as Session;
  const place = { name: 'i-1', host: '10.0.0.1', port: 80 };
  const warnings: unknown[] = [];
  const announcer = createAnnouncer({
    session,
    path: '/web',
    place,
    kind: { mode: 'ephemeral-sequential', isEphemeral: true, isSequential: true },
    codec: codecFor(),
    pathEncoding: false,
    ttlMs: undefined,
    persistent: { isMade: false, make() {}, drop() {} },
    log: { ...silentLog, child: () => ({ ...silentLog, warn: ({ err }) => void warnings.push(err) }) },
    saved: () => Promise.resolve(),
    onRelease() {},
  });

  announcer.set(place);
  await sleep(30);
  announcer.release();

  assert.deepEqual(creates, ['/web/i-1_', '/web', '/web/i-1_']);
  assert.deepEqual(warnings, ['the path vanished at once']);
});
