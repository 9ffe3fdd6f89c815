import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  duration,
  formatProblem,
  HostSection,
  Labels,
  LogSection,
  parseYaml,
  Port,
  RegistryPath,
  SafeName,
} from '@tandem/core';

const Check = HostSection.pick({}).extend({ path: RegistryPath, interval: duration().prefault('2s') });
const Service = HostSection.pick({}).extend({
  service: SafeName,
  level: LogSection.shape.level,
  port: Port,
  timeout: duration().optional(),
  labels: Labels.default({}),
  ports: Port.or(Port.array()).optional(),
  checks: Check.array().default([]),
});

/** What a person is told about a text. */
function told(text: string): string[] {
  const result = parseYaml(text, 'web.yaml', Service);
  return result.ok ? [] : result.problems.map(formatProblem);
}

/** For files with one mistake only. */
function mistake(text: string): string {
  const problems = told(text);
  assert.equal(problems.length, 1, problems.join('\n'));
  return problems[0] ?? '';
}

describe('a YAML file', () => {
  test('means what the schema makes of it', () => {
    const text = 'service: web\nport: 80\ntimeout: 500ms\nchecks:\n  - path: /health\n';
    assert.deepEqual(parseYaml(text, 'web.yaml', Service), {
      ok: true,
      value: {
        service: 'web',
        level: 'info',
        port: 80,
        timeout: 500,
        labels: {},
        checks: [{ path: '/health', interval: 2000 }],
      },
    });
  });

  test('may be JSON, and may use anchors and merges', () => {
    assert.deepEqual(told('{"service": "web", "port": 80}'), []);
    assert.deepEqual(
      told('service: web\nport: 80\nchecks:\n  - &a { path: /a }\n  - { <<: *a, interval: 5s }\n'),
      [],
    );
  });

  test('is told the place of a wrong type, with what was found', () => {
    assert.equal(mistake('service: web\nport: "80a"\n'), 'web.yaml:2:7: port: must be a number, found "80a"');
    assert.equal(mistake('service: 7\nport: 80\n'), 'web.yaml:1:10: service: must be text, found 7');
    assert.equal(
      mistake('service: web\nport: 80\nchecks: {}\n'),
      'web.yaml:3:9: checks: must be a list, found a map of keys',
    );
    assert.equal(
      mistake('service: web\nport: 80\nlabels:\n'),
      'web.yaml:3:8: labels: must be a map of keys, found an empty value',
    );
    assert.equal(
      mistake('service: web\nport: 1.5\n'),
      'web.yaml:2:7: port: must be a whole number, found 1.5',
    );
  });

  test('is told an unknown key, what is known, and what was probably meant', () => {
    assert.equal(
      mistake('service: web\nprot: 80\nport: 80\n'),
      'web.yaml:2:1: "prot" is not known here. Known: service, level, port, timeout, labels, ports, checks. Did you mean "port"?',
    );
    assert.match(mistake('service: web\nport: 80\nzzzzzz: 1\n'), /Known: service, level.*checks\.$/);
  });

  test('is told a missing key', () => {
    assert.equal(mistake('service: web\n'), 'web.yaml:1:1: port: is required but missing. Give it a number');
  });

  test('is told a bad choice, with the choices', () => {
    assert.equal(
      mistake('service: web\nport: 80\nlevel: wran\n'),
      'web.yaml:3:8: level: found "wran", which is not one of the choices. Known: debug, info, warn, error. Did you mean "warn"?',
    );
  });

  test('is told a bad duration, whatever it is instead', () => {
    const hint = 'timeout: must be a duration such as 500ms, 2s or 1m';
    assert.equal(
      mistake('service: web\nport: 80\ntimeout: 5 minutes\n'),
      `web.yaml:3:10: ${hint}, found "5 minutes"`,
    );
    assert.equal(mistake('service: web\nport: 80\ntimeout: 5\n'), `web.yaml:3:10: ${hint}, found 5`);
    assert.match(
      mistake('service: web\nport: 80\ntimeout: 48h\n'),
      /timeout: must be between 1ms and 24h, found "48h"/,
    );
  });

  test('is told a number out of range', () => {
    assert.equal(mistake('service: web\nport: 0\n'), 'web.yaml:2:7: port: must be at least 1, found 0');
    assert.equal(
      mistake('service: web\nport: 70000\n'),
      'web.yaml:2:7: port: must be at most 65535, found 70000',
    );
    assert.equal(
      mistake('service: ""\nport: 80\n'),
      'web.yaml:1:10: service: must start with a letter or digit and hold only letters, digits, "_", "." and "-", found ""',
    );
  });

  test('is told the place within nested lists', () => {
    const text =
      'service: web\nport: 80\nchecks:\n  - path: /a\n  - path: /a\n    inteval: 1s\n  - path: [1]\n';
    assert.deepEqual(told(text), [
      'web.yaml:6:5: checks[1]: "inteval" is not known here. Known: path, interval. Did you mean "interval"?',
      'web.yaml:7:11: checks[2].path: must be text, found a list',
    ]);
  });

  test('is told about the branch of a union that it came nearest to', () => {
    assert.equal(
      mistake('service: web\nport: 80\nports: 0\n'),
      'web.yaml:3:8: ports: must be at least 1, found 0',
    );
    assert.equal(
      mistake('service: web\nport: 80\nports: [80, 0]\n'),
      'web.yaml:3:13: ports[1]: must be at least 1, found 0',
    );
  });

  test('is told about a key that cannot be one', () => {
    assert.equal(
      mistake('service: web\nport: 80\nlabels: { a: b, "": c }\n'),
      'web.yaml:3:17: labels: the key "" cannot be used: must be non-empty text, found ""',
    );
    assert.match(
      mistake('service: web\nport: 80\nlabels: { version: 1.4 }\n'),
      /3:20: labels\.version: must be text, found 1\.4/,
    );
  });

  test('is told every mistake at once, from top to bottom', () => {
    assert.deepEqual(
      told('service: 7\nport: 0\nlevel: x\nbogus: 1\n').map((line) => line.split(': ')[0]),
      ['web.yaml:1:10', 'web.yaml:2:7', 'web.yaml:3:8', 'web.yaml:4:1'],
    );
  });

  test('that is not YAML is told where it stops being so', () => {
    assert.match(mistake('service: web\nport: [80\n'), /^web\.yaml:\d:\d+: not valid YAML: /);
    assert.match(told('service: web\n\tport: 80\n').join('\n'), /^web\.yaml:2:1: not valid YAML: /);
    assert.match(
      told('service: web\n---\nport: 80\n').join('\n'),
      /^web\.yaml:2:1: not valid YAML: .*documents/,
    );
  });

  test('with the same key twice is refused', () => {
    assert.match(mistake('service: web\nport: 80\nport: 81\n'), /^web\.yaml:3:1: not valid YAML: .*unique/);
  });

  test('that is empty lacks everything that is required', () => {
    for (const text of ['', '\n', '# nothing\n', '---\n']) {
      assert.match(
        told(text).join('\n'),
        /^web\.yaml:1:\d: service: is required but missing/,
        JSON.stringify(text),
      );
    }
    for (const text of ['web', '[1]', '7']) assert.match(told(text).join('\n'), /must be a map of keys/);
  });

  test('that explodes when its aliases are followed is refused, fast', () => {
    const letters = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'];
    const bomb = letters.map((letter, index) => {
      const before = letters[index - 1];
      const items = Array.from({ length: 9 }, () => (before === undefined ? '"x"' : `*${before}`));
      return `${letter}: &${letter} [${items.join(', ')}]`;
    });
    const startedAt = Date.now();
    assert.match(mistake(bomb.join('\n')), /^web\.yaml:1:1: not valid YAML: Excessive alias count/);
    assert.ok(Date.now() - startedAt < 2000);
  });

  test('that names keys of every object does nothing to anybody', () => {
    assert.match(
      told('service: web\nport: 80\n__proto__: { polluted: true }\n').join('\n'),
      /"__proto__" is not known here/,
    );
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
  });
});
