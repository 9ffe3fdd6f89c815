import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { formatProblem, parseYaml } from '@tandem/core';
import { RegisterSection } from '@tandem/registrar';

/** What a section means, or what is wrong with it, as a person is told. */
function read(text: string) {
  const parsed = parseYaml(`port: 80\n${text}`, 'web.yaml', RegisterSection);
  return parsed.ok ? parsed.value.announce : parsed.problems.map(formatProblem);
}

describe('how an instance is written', () => {
  test('is Nerve’s way unless the file says otherwise; path encoding is for the host file to say', () => {
    assert.deepEqual(read(''), { format: { kind: 'nerve' }, nodeType: 'ephemeral_sequential' });
  });

  test('may be chosen for every service', () => {
    assert.deepEqual(read('node_type: persistent\npath_encoding: false\nttl: 90s'), {
      format: { kind: 'nerve' },
      nodeType: 'persistent',
      pathEncoding: false,
      ttlMs: 90_000,
    });
    assert.deepEqual(read('format: serverset\nendpoint: http\nnode_type: persistent_sequential'), {
      format: { kind: 'serverset', endpoint: 'http' },
      nodeType: 'persistent_sequential',
    });
  });

  test('makes sense as a whole, or the mistake is told with what to do', () => {
    for (const [text, problem] of [
      [
        'ttl: 1m',
        'web.yaml:2:6: ttl: is for persistent nodes: remove it, or set node_type: persistent_sequential, found "1m"',
      ],
      [
        'node_type: ephemeral\nttl: 1m',
        'web.yaml:3:6: ttl: is for persistent nodes: remove it, or set node_type: persistent, found "1m"',
      ],
      [
        'format: serverset\nnode_type: ephemeral',
        'web.yaml:3:12: node_type: must be sequential in a serverset: set node_type: ephemeral_sequential, found "ephemeral"',
      ],
      [
        'format: serverset\npath_encoding: true',
        'web.yaml:3:16: path_encoding: is of format nerve: remove it, or set format: nerve, found true',
      ],
      [
        'endpoint: http',
        'web.yaml:2:11: endpoint: only serversets have endpoints. Remove it, or set format: serverset, found "http"',
      ],
      [
        'node_type: persistant',
        'web.yaml:2:12: node_type: found "persistant", which is not one of the choices. Known: ephemeral_sequential, ephemeral, persistent_sequential, persistent. Did you mean "persistent"?',
      ],
    ] as const)
      assert.deepEqual(read(text), [problem], text);
  });
});

describe('what is announced, and when', () => {
  /** The whole meaning of a section, or what is wrong with it. */
  function meaning(text: string) {
    const parsed = parseYaml(`port: 80\n${text}`, 'web.yaml', RegisterSection);
    if (!parsed.ok) return parsed.problems.map(formatProblem);
    const { announce: _announce, checks: _checks, labels: _labels, port: _port, ...rest } = parsed.value;
    return rest;
  }

  test('is what the file says, and nothing that it does not say', () => {
    assert.deepEqual(meaning(''), {});
    assert.deepEqual(
      meaning(
        [
          'address: db1.example.net',
          'instance_id: i-1-blue',
          'weight: 100',
          'haproxy_server_options: "check inter 2s"',
          'slow_start: 30s',
          'drain_file: /var/run/web.drain',
          'rate_limit: { per: 10s }',
          'flap_damping: { max: 3 }',
        ].join('\n'),
      ),
      {
        address: 'db1.example.net',
        instanceId: 'i-1-blue',
        weight: 100,
        haproxyServerOptions: 'check inter 2s',
        slowStartMs: 30_000,
        drainFile: '/var/run/web.drain',
        rateLimit: { perMs: 10_000, burst: 3, isShadow: false },
        flapDamping: { max: 3, windowMs: 60_000, holdMs: 30_000, maxHoldMs: 600_000 },
      },
    );
    assert.deepEqual(meaning('flap_damping: { enabled: false }'), { flapDamping: false });
    assert.deepEqual(meaning('weight: 2\nslow_start: 1s'), { weight: 2, slowStartMs: 1_000 });
  });

  test('makes sense, or the mistake is told with what to do', () => {
    for (const [text, problem] of [
      [
        'slow_start: 30s',
        'web.yaml:2:13: slow_start: needs a weight of at least 2 to grow to: set weight, such as weight: 100, found "30s"',
      ],
      [
        'weight: 1\nslow_start: 30s',
        'web.yaml:3:13: slow_start: needs a weight of at least 2 to grow to: set weight, such as weight: 100, found "30s"',
      ],
      [
        'format: serverset\nweight: 5\nslow_start: 30s',
        'web.yaml:4:13: slow_start: cannot be said in a serverset: remove it, or set format: nerve, found "30s"',
      ],
      [
        'format: serverset\nhaproxy_server_options: check',
        'web.yaml:3:25: haproxy_server_options: cannot be said in a serverset: remove it, or set format: nerve, found "check"',
      ],
      [
        'address: 0.0.0.0',
        'web.yaml:2:10: address: must be the address of one host, not of all its interfaces, found "0.0.0.0"',
      ],
      [
        'address: fe80::1%eth0',
        'web.yaml:2:10: address: must not have a zone (%): it means nothing on other hosts, found "fe80::1%eth0"',
      ],
      [
        'flap_damping: { hold: 10m, max_hold: 1m }',
        'web.yaml:2:38: flap_damping.max_hold: must not be shorter than hold: raise it, or lower hold, found "1m"',
      ],
    ] as const)
      assert.deepEqual(meaning(text), [problem], text);
  });

  test('never holds server options that would mean something else in a configuration of HAProxy', () => {
    for (const options of [
      'a\nb',
      'a\rb',
      'a\u0000',
      'a\u0085b',
      'a\u2028b',
      "it's",
      '"x"',
      'a # b',
      '$HOME',
      'a\\ b',
      '',
    ])
      assert.ok(!RegisterSection.safeParse({ port: 80, haproxy_server_options: options }).success, options);
    assert.ok(!RegisterSection.safeParse({ port: 80, haproxy_server_options: 'x'.repeat(1_001) }).success);
  });
});
