import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  discoveryRoutes,
  formatService,
  formatStatus,
  formatTable,
  parseState,
  printableJson,
} from '@tandem/cli/testing';
import type { DiscoveryState } from '@tandem/discovery';
import { isTandemError } from '@tandem/core';
import * as fc from 'fast-check';

const HAPROXY = {
  running: { version: '2.6.12', incarnation: '1:2', mark: 'tandem 0123456789abcdef' },
  applied: { agoMs: 61_200, tookMs: 12.4 },
  setAside: [],
  foreignHolds: [],
};

function instance(name: string, more: Record<string, unknown> = {}) {
  const endpoint = '10.0.0.1:80';
  return {
    id: `${name}_${endpoint}`,
    name,
    endpoint,
    weight: 1,
    offered: true,
    guarded: false,
    fallback: false,
    ...more,
  };
}

function service(name: string, more: Record<string, unknown> = {}) {
  return { service: name, path: `/services/${name}`, use: 'source', instances: [], rejected: [], ...more };
}

/** As it comes from the daemon. */
function state(services: readonly unknown[], haproxy: Record<string, unknown> = {}) {
  return parseState({ phase: 'serving', services, haproxy: { ...HAPROXY, ...haproxy } });
}

describe('the status of a daemon', () => {
  test('is read as the daemon says it: what it may say, these commands can show', () => {
    const said: DiscoveryState = {
      phase: 'starting',
      services: [
        {
          service: 'web',
          path: '/web',
          use: 'unknown',
          instances: [],
          guardMs: undefined,
          rejected: [],
          sourceError: undefined,
        },
      ],
      haproxy: {
        running: undefined,
        applied: undefined,
        problem: undefined,
        refused: undefined,
        setAside: [{ kind: 'section', name: 'x', reason: 'y', goesOn: false }],
        foreignHolds: [],
      },
    };
    // The compiler, too, holds the two shapes together.
    const readable: ReturnType<typeof parseState> = said;

    assert.deepEqual(parseState(JSON.parse(JSON.stringify(said))), JSON.parse(JSON.stringify(readable)));
  });

  test('has a line for each service, and says what somebody should look at', () => {
    const text = formatStatus(
      state(
        [
          service('db', { use: 'unknown' }),
          service('web', {
            instances: [
              instance('a'),
              instance('b', { held: 'drain' }),
              instance('c', { guarded: true }),
              instance('d', { offered: false }),
            ],
            guardMs: 12_300,
            rejected: [{ place: 'n_1', reason: 'not JSON' }],
          }),
        ],
        {
          refused: 'line 3: unknown keyword',
          setAside: [
            { kind: 'service', name: 'x', reason: 'no port is free', goesOn: false },
            { kind: 'service', name: 'web', reason: 'unknown word', goesOn: true },
            { kind: 'shared-frontend', name: 'edge', reason: 'taken', goesOn: true },
            { kind: 'port-range', name: 'http', reason: 'taken', goesOn: false },
            { kind: 'section', name: 'listen stats', reason: 'taken', goesOn: false },
          ],
          foreignHolds: [{ service: 'web', server: 'a_10.0.0.1:80', kind: 'drain' }],
        },
      ),
    );

    assert.deepEqual(text.split('\n'), [
      'HAProxy 2.6.12 (tandem 0123456789abcdef), last applied 61s ago in 12 ms',
      '! HAProxy refuses the configuration: line 3: unknown keyword',
      '! x is not there: no port is free',
      '! web goes on as it was: unknown word',
      '! the shared frontend edge goes on as it was: taken',
      '! the port range for http is not there: taken',
      '! the section listen stats is not there: taken',
      '! web: a_10.0.0.1:80 is in drain, and not by "tandem hold"',
      '',
      'SERVICE  IN USE  HELD  GUARDED  KNOWN  NOTES',
      'db       0       0     0        0      its source has not spoken yet',
      'web      2       1     1        4      a loss is held for another 12s; 1 set aside',
      '',
    ]);
  });

  test('has the instances of one service', () => {
    const text = formatService(
      state(
        [
          service('web', {
            use: 'fallback',
            instances: [instance('a', { held: 'maint' }), instance('b', { fallback: true, weight: 5 })],
            rejected: [{ place: 'n_1', reason: 'not JSON' }],
          }),
        ],
        {
          setAside: [
            { kind: 'service', name: 'web', reason: 'unknown word', goesOn: true },
            { kind: 'service', name: 'x', reason: 'unknown word', goesOn: true },
            { kind: 'shared-frontend', name: 'web', reason: 'taken', goesOn: true },
          ],
          foreignHolds: [
            { service: 'web', server: 'b_10.0.0.1:80', kind: 'maint' },
            { service: 'x', server: 'c_10.0.0.1:80', kind: 'maint' },
          ],
        },
      ),
      'web',
    );

    assert.deepEqual(text.split('\n'), [
      'web at /services/web',
      '  its fallback is used',
      '  1 set aside',
      '  web goes on as it was: unknown word',
      '  b_10.0.0.1:80 is in maint, and not by "tandem hold"',
      '  set aside: n_1: not JSON',
      '',
      'INSTANCE  ADDRESS      WEIGHT  STATE',
      'a         10.0.0.1:80  1       maint',
      'b         10.0.0.1:80  5       in use, fallback',
      '',
    ]);
  });

  test('names the services that could have been meant', () => {
    for (const [name, hint] of [
      ['wbe', 'Did you mean "web"?'],
      ['nothing', 'Known: db, web.'],
    ] as const)
      assert.throws(
        () => formatService(state([service('db'), service('web')]), name),
        (error) => isTandemError(error, 'CONTROL_REFUSED') && error.message.endsWith(hint),
      );
  });

  test('of a daemon of another version is not guessed at', () => {
    assert.throws(
      () => parseState({ services: 3 }),
      (error) => isTandemError(error, 'CONTROL_UNREACHABLE') && error.message.includes('restart it'),
    );
  });

  test('shows nothing that a terminal would obey, whatever the registry says', () => {
    const hostile = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('\u001b[2J\u001b[31m', '\u202egnp.exe', 'a\nb', '\u009b2J', '\u0000', 'ｗｅｂ'),
    );
    fc.assert(
      fc.property(hostile, hostile, (name, reason) => {
        const shown = state(
          [
            service('web', {
              path: `/${reason}`,
              instances: [instance(name, { endpoint: reason })],
              rejected: [{ place: name, reason }],
              sourceError: reason,
            }),
          ],
          {
            problem: reason,
            refused: name,
            setAside: [{ kind: 'section', name, reason, goesOn: true }],
            foreignHolds: [{ service: 'web', server: name, kind: 'drain' }],
          },
        );

        const [all, one] = [formatStatus(shown), formatService(shown, 'web')];
        assert.match(all, /^[ -~\n]*$/);
        assert.match(one, /^[ -~\n]*$/);
        // Nothing of it makes a line of its own.
        assert.equal(all.split('\n').length, 9);
        assert.equal(one.split('\n').length, 9);
        // As JSON it says the same, in letters that nobody obeys.
        const json = printableJson(shown);
        assert.match(json, /^[ -~]*$/);
        assert.deepEqual(JSON.parse(json), JSON.parse(JSON.stringify(shown)));
      }),
    );
  });
});

describe('a table', () => {
  test('is as wide as its widest cells, without blanks at the ends', () => {
    assert.equal(
      formatTable(
        ['A', 'LONG', 'C'],
        [
          ['wider', 'x', ''],
          ['', 'y', 'é'],
        ],
      ),
      'A      LONG  C\nwider  x\n       y     \\u{e9}\n',
    );
  });
});

describe('the requests of operators', () => {
  const signal = new AbortController().signal;

  function routes(answer: Parameters<typeof discoveryRoutes>[0]['hold']) {
    const asked: string[] = [];
    const hold = (...args: Parameters<typeof answer>) => {
      asked.push(args.join(' '));
      return answer(...args);
    };
    const release = (service: string, instance: string) => hold(service, instance, 'drain');
    const [, put, remove] = discoveryRoutes({ hold, release, state: () => assert.fail('not asked for') });
    assert.ok(put !== undefined && remove !== undefined);
    return { asked, put, remove };
  }

  test('must say which kind of hold they want', async () => {
    const { asked, put } = routes(() => assert.fail('nothing may be held'));

    for (const body of [undefined, null, {}, { kind: 'ready' }, { kind: 'drain', more: 1 }, []]) {
      const answer = await put.answer({ params: { service: 'web', instance: 'a' }, body, signal });
      assert.ok(!answer.ok);
      assert.equal(answer.status, 400);
    }
    assert.deepEqual(asked, []);
  });

  test('are answered with what could have been meant', async () => {
    const candidates = Array.from({ length: 30 }, (_, index) => `i-${index}`);
    const answers = {
      'unknown-service': /^no such service\. Known: i-0, .*i-19, \.\.\.$/,
      'unknown-instance': /^no such instance\. Known: i-0, /,
      'ambiguous-instance': /^several instances are meant, name one of them: i-0, /,
      'not-held': /^that instance is not held\. Held: i-0, /,
    } as const;
    for (const [reason, says] of Object.entries(answers)) {
      const { remove } = routes(() =>
        Promise.resolve({ ok: false, reason: reason as keyof typeof answers, candidates }),
      );
      const answer = await remove.answer({
        params: { service: 'web', instance: 'i' },
        body: undefined,
        signal,
      });
      assert.ok(!answer.ok);
      assert.match(answer.message, says);
      assert.equal(answer.status, reason === 'ambiguous-instance' ? 409 : 404);
    }
  });
});
