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
