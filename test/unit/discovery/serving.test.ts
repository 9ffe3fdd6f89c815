import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import type { Instance } from '@tandem/core';
import { HaproxySection } from '@tandem/discovery';
import { instanceOf, readServing, type ReportedServer } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { serversOf } from './support.ts';

const instance: fc.Arbitrary<Instance> = fc.record(
  {
    name: fc.stringMatching(/^[A-Za-z0-9_.:-]{0,20}$/),
    host: fc.oneof(fc.ipV4(), fc.ipV6()).filter((host) => host !== '0.0.0.0'),
    port: fc.integer({ min: 1, max: 65_535 }),
    weight: fc.integer({ min: 0, max: 256 }),
    haproxyServerOptions: fc.constantFrom('', 'backup', 'check inter 2s', 'maxconn 7 backup'),
  },
  { requiredKeys: ['name', 'host', 'port'] },
);

describe('what a running HAProxy serves', () => {
  test('is the instances that its servers were made of', () => {
    fc.assert(
      fc.property(instance, (original) => {
        const [server] = serversOf([original]);
        fc.pre(server !== undefined);
        const found = instanceOf(server, server.options);
        assert.ok(found, server.name);
        assert.deepEqual(serversOf([found]), [server]);
      }),
    );
  });

  test('is nothing that is named otherwise', () => {
    const server: ReportedServer = { ...ready('a'), name: 'main' };
    for (const name of ['main', '', 'a:10.0.0.1:80', 'a_10.0.0.1:8080', 'a_10.0.0.1:80:backup', ':80'])
      assert.equal(instanceOf({ ...server, name }, ''), undefined, name);
  });

  test('is nothing that no HAProxy says', () =>
    inDirectory(async (directory) => {
      const config = HaproxySection.parse({
        runtime_socket: path.join(directory, 'haproxy.sock'),
        config_file: path.join(directory, 'haproxy.cfg'),
      });
      await writeFile(config.configFile, 'backend web\n  server a_10.0.0.1:80 10.0.0.1:80 id 1\n');
      const serving = await readServing(config, [service('web', 3210)], new AbortController().signal);
      assert.equal(serving, undefined);
    }));
});

function ready(name: string): ReportedServer {
  const [server] = serversOf([{ name, host: '10.0.0.1', port: 80 }]);
  assert.ok(server);
  return server;
}
