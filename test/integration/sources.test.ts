// Sources with what they stand on: ZooKeeper behind a network that can be cut, and HAProxy at the other end.
import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, silentLog } from '@tandem/core';
import { createSource } from '@tandem/discovery/testing';
import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { sourceConformance, type SourceSubject } from '../conformance/source.ts';
import { startDnsServer } from '../support/dns-server.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { createHaproxyWorld, eventually, freePort, service } from '../support/haproxy.ts';
import { startHttpOrigin } from '../support/origin.ts';
import { endLater, nodesOf, openTestRegistry, noSurprises } from '../support/registries.ts';

let server: EmbeddedZooKeeper;
let count = 0;

before(async () => {
  server = await startEmbeddedZooKeeper();
});
after(() => server.close());
noSurprises();

function member(number: number): Instance {
  return { name: `i-${number}`, host: '10.0.0.1', port: 8000 + number, labels: { number: `${number}` } };
}

async function zookeeperSubject(...first: number[]): Promise<SourceSubject> {
  count += 1;
  const web = `/services/web-${count}`;
  const nodes = nodesOf(server.port);
  const proxy = await startFaultProxy(server.port);
  endLater(() => proxy.close());
  let sequence = 0;
  /** Those that stay keep their nodes, as they do in a fleet. */
  const write = async (records: readonly string[]) => {
    await nodes.create(web);
    const missing = [...records];
    const [names, standing] = [await nodes.children(web), await nodes.records(web)];
    for (const [index, record] of standing.entries()) {
      const wanted = missing.indexOf(record);
      if (wanted >= 0) missing.splice(wanted, 1);
      else await nodes.remove(`${web}/${names[index]}`);
    }
    for (const record of missing) {
      sequence += 1;
      await nodes.create(`${web}/i_${String(sequence).padStart(10, '0')}`, record);
    }
  };
  const recordsOf = (members: readonly number[]) => members.map((number) => JSON.stringify(member(number)));
  await write(recordsOf(first));
  if (first.length === 0) proxy.blackhole();
  const registry = await openTestRegistry(proxy.port);
  const open = { count: 0 };
  const source = createSource(
    { kind: 'registry' },
    { registry, path: web, format: { kind: 'nerve' }, hostName: 'host-1', log: silentLog },
  );
  return {
    source: {
      async *watch(signal) {
        open.count += 1;
        try {
          yield* source.watch(signal);
        } finally {
          open.count -= 1;
        }
      },
    },
    instanceOf: member,
    serve: (...members) => write(recordsOf(members)),
    hide: () => proxy.blackhole(),
    restore: () => proxy.pass(),
    serveWithBroken: (...members) => write(['{"host":7}', ...recordsOf(members)]),
    leftovers: () => open.count,
    async close() {
      proxy.pass();
      await registry.close();
      await proxy.close();
    },
  };
}

sourceConformance('registry on ZooKeeper', zookeeperSubject);

async function ask(port: number): Promise<string> {
  const request = http.get({ host: '127.0.0.1', port, agent: false });
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once('response', resolve).once('error', reject);
  });
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
  return text;
}

test(
  'HAProxy follows a file and names of the DNS, and keeps what they last said',
  { timeout: 120_000 },
  async () => {
    const world = await createHaproxyWorld();
    const [one, two] = await Promise.all([startHttpOrigin(), startHttpOrigin('127.0.0.2')]);
    const dns = await startDnsServer({ 'web.example.com': { a: ['127.0.0.1'], ttl: 0 } });
    try {
      const [filePort, dnsPort] = [await freePort(), await freePort()];
      const file = path.join(world.directory, 'backends.json');
      const write = async (text: string) => {
        await writeFile(`${file}.new`, text);
        await rename(`${file}.new`, file);
      };
      await write(JSON.stringify([{ name: 'one', host: '127.0.0.1', port: one.port }]));
      const names = {
        names: [{ host: 'web.example.com', port: one.port }],
        nameservers: [dns.address],
        min_ttl: '100ms',
        timeout: '200ms',
      };
      const daemon = world.start([
        service('files', `127.0.0.1:${filePort}`, { source: { file: { path: file } } }),
        service('names', `127.0.0.1:${dnsPort}`, { source: { dns: names } }),
      ]);
      await world.becomes('files', ['one']);
      await world.becomes('names', ['web.example.com']);
      assert.equal(await ask(filePort), String(one.port));
      assert.equal(await ask(dnsPort), String(one.port));

      await write(JSON.stringify([{ name: 'two', host: '127.0.0.2', port: two.port }]));
      dns.zones.set('web.example.com', { a: ['127.0.0.3'], ttl: 0 });
      await world.becomes('files', ['two']);
      await eventually(async () =>
        assert.deepEqual(await world.servers('names'), [
          `web.example.com_127.0.0.3:${one.port} 127.0.0.3:${one.port} 1`,
        ]),
      );
      assert.equal(await ask(filePort), String(two.port));

      const before = await Promise.all([world.servers('files'), world.servers('names')]);
      await write('[{ "name": "two", "ho');
      await dns.close();
      await eventually(() => {
        assert.equal(world.logged('a file of instances cannot be used, keeping what it last said').length, 1);
        assert.equal(world.logged('a name is not answered, keeping what it last stood for').length, 1);
      });
      await sleep(300);
      assert.deepEqual(await Promise.all([world.servers('files'), world.servers('names')]), before);
      assert.equal(world.reloads(), 0, world.reloadReasons());
      await daemon.stop();
    } finally {
      await world.end();
      await Promise.all([one.close(), two.close(), dns.close()]);
    }
  },
);
