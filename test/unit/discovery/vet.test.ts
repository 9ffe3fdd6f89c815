import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { describe, test } from 'node:test';

import { buildStructure, HaproxySection } from '@tandem/discovery';
import type { Endpoint, VetDeps } from '@tandem/discovery/testing';
import {
  endpointsOf,
  explainComplaint,
  formatBind,
  parseEndpoint,
  vetStructure,
  whyTaken,
} from '@tandem/discovery/testing';

import { service } from '../../support/haproxy.ts';
import { inDirectory, structureOf } from './support.ts';

const web = service('web', '127.0.0.1:3210');
const api = service('api', '127.0.0.1:3211');
const odd = service('odd', '127.0.0.1:3212', { server_options: 'nonsense' });

function endpoint(bind: string): Endpoint {
  const parsed = parseEndpoint(bind);
  assert.ok(parsed !== undefined, bind);
  return parsed;
}

function deps(own: Partial<VetDeps> = {}): VetDeps {
  return {
    good: undefined,
    own: [],
    check: (text) => Promise.resolve(text.includes('nonsense') ? 'unknown word' : undefined),
    whyTaken: () => Promise.resolve(undefined),
    ...own,
  };
}

function namesOf(vetted: Awaited<ReturnType<typeof vetStructure>>): string[] {
  assert.equal(vetted.kind, 'accepted');
  return vetted.kind === 'accepted' ? vetted.structure.proxies.map(({ name }) => name) : [];
}

describe('vetting a structure', () => {
  test('takes one that is in order as it is', async () => {
    const wanted = structureOf([web, api]);

    assert.deepEqual(await vetStructure(wanted, deps()), {
      kind: 'accepted',
      structure: wanted,
      setAside: [],
    });
  });

  test('sets the service aside that HAProxy refuses, and only that', async () => {
    const vetted = await vetStructure(structureOf([web, api, odd]), deps());

    assert.deepEqual(namesOf(vetted), ['api', 'web']);
    assert.deepEqual(vetted.kind === 'accepted' && vetted.setAside, [
      { service: 'odd', reason: 'unknown word' },
    ]);
  });

  test('says the same of the same mistake, though another process found it', async () => {
    let pid = 4_000;
    const check = (text: string) =>
      Promise.resolve(text.includes('nonsense') ? `[ALERT]    (${(pid += 1)}) : unknown word` : undefined);
    const [first, second] = [
      await vetStructure(structureOf([web, odd]), deps({ check })),
      await vetStructure(structureOf([web, odd]), deps({ check })),
    ];
    assert.deepEqual(first, second);
    assert.deepEqual(first.kind === 'accepted' && first.setAside, [
      { service: 'odd', reason: '[ALERT] : unknown word' },
    ]);
  });

  test('goes on with the last good version of a service that is refused', async () => {
    const before = service('odd', '127.0.0.1:3212');
    const vetted = await vetStructure(structureOf([web, odd]), deps({ good: structureOf([before]) }));

    assert.deepEqual(namesOf(vetted), ['odd', 'web']);
    assert.equal(vetted.kind === 'accepted' && vetted.structure.proxies[0]?.serverOptions, '');
  });

  test('refuses the whole when what is common to all services is wrong', async () => {
    const vetted = await vetStructure(
      structureOf([web]),
      deps({ check: () => Promise.resolve('bad global') }),
    );

    assert.deepEqual(vetted, { kind: 'refused', complaint: 'bad global' });
  });

  test('tries new addresses, and none that HAProxy listens on itself', async () => {
    const tried: string[] = [];
    const taken = (endpoint: Endpoint) => {
      tried.push(formatBind(endpoint));
      return Promise.resolve('taken');
    };
    const wanted = structureOf([service('web', '*:3210'), api]);

    const vetted = await vetStructure(wanted, deps({ own: [endpoint('127.0.0.1:3210')], whyTaken: taken }));

    assert.deepEqual(tried, ['127.0.0.1:3211']);
    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('tries no address while a HAProxy runs whose structure nobody knows', async () => {
    const vetted = await vetStructure(
      structureOf([web]),
      deps({ own: undefined, whyTaken: () => Promise.resolve('taken') }),
    );

    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('tries every way in which a structure listens, each port once, and what HAProxy has itself not at all', async () => {
    const tried: string[] = [];
    const whyTaken = (one: Endpoint) => {
      tried.push(formatBind(one));
      return Promise.resolve(undefined);
    };
    const wanted = buildStructure(
      HaproxySection.parse({
        shared_frontends: { edge: { listen: [80, '[::1]:80'], lines: ['bind *:81', 'maxconn 5'] } },
        port_range: { http: '21000-21002', spares: 1 },
        extra_sections: { 'listen stats': ['bind 10.0.0.5:9000,10.0.0.6:9000', 'mode http'] },
      }),
      [web, service('socket', '/run/x.sock', { frontend: ['bind unix@/run/y.sock'] })],
    );

    await vetStructure(wanted, deps({ own: [endpoint('127.0.0.1:21001')], whyTaken }));

    assert.deepEqual(tried.toSorted(), [
      '/run/x.sock',
      '/run/y.sock',
      '0.0.0.0:81',
      '10.0.0.5:9000',
      '10.0.0.6:9000',
      '127.0.0.1:21000',
      '127.0.0.1:21002',
      '127.0.0.1:3210',
      '127.0.0.1:80',
      '[::1]:80',
    ]);
    assert.deepEqual(
      endpointsOf(wanted).map(formatBind).toSorted(),
      tried
        .filter((one) => !one.startsWith('127.0.0.1:210'))
        .concat('127.0.0.1:21000-21002')
        .toSorted(),
    );
  });

  test('sets a shared frontend, a range or a section aside alone when its address is taken', async () => {
    const config = HaproxySection.parse({
      shared_frontends: { edge: { listen: 80 }, other: { listen: 81 } },
      port_range: { http: '21000-21002', tcp: '22000-22002', spares: 1 },
      extra_sections: { 'listen stats': ['bind *:9000'], 'listen more': ['bind *:9001'] },
    });
    const taken = new Set(['127.0.0.1:80', '127.0.0.1:21001', '0.0.0.0:9000']);
    const whyTaken = (one: Endpoint) =>
      Promise.resolve(taken.has(formatBind(one)) ? `${formatBind(one)} is taken` : undefined);

    const vetted = await vetStructure(buildStructure(config, [web]), deps({ whyTaken }));

    assert.ok(vetted.kind === 'accepted');
    assert.deepEqual(vetted.setAside, [
      { section: 'listen stats', reason: '0.0.0.0:9000 is taken' },
      { portRange: 'http', reason: '127.0.0.1:21001 is taken' },
      { sharedFrontend: 'edge', reason: '127.0.0.1:80 is taken' },
    ]);
    const { structure } = vetted;
    assert.deepEqual(Object.keys(structure.extraSections), ['listen more']);
    assert.deepEqual(
      structure.sharedFrontends.map(({ name }) => name),
      ['other'],
    );
    assert.deepEqual(namesOf(vetted), ['tandem-spare-tcp-1', 'web']);
  });

  test('sets the shared frontend aside that HAProxy refuses, which keeps its last good version', async () => {
    const withLines = (lines: string[]) =>
      buildStructure(HaproxySection.parse({ shared_frontends: { edge: { listen: 80, lines } } }), [web]);

    const vetted = await vetStructure(withLines(['nonsense']), deps({ good: withLines(['maxconn 5']) }));

    assert.ok(vetted.kind === 'accepted');
    assert.deepEqual(vetted.setAside, [{ sharedFrontend: 'edge', reason: 'unknown word' }]);
    assert.deepEqual(vetted.structure.sharedFrontends[0]?.lines, ['maxconn 5']);
  });

  test('gives nobody an address back that somebody else has now', async () => {
    const good = structureOf([service('odd', '127.0.0.1:3210')]);
    const vetted = await vetStructure(structureOf([service('web', '*:3210'), odd]), deps({ good }));
    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('asks HAProxy nothing of backends that wait', async () => {
    const asked: string[] = [];
    const check = (text: string) => {
      asked.push(text);
      return Promise.resolve(text.includes('nonsense') ? 'unknown word' : undefined);
    };
    const config = HaproxySection.parse({ port_range: { http: '21000-21002', spares: 500 } });
    const vetted = await vetStructure(buildStructure(config, [web, odd]), deps({ check }));
    assert.equal(namesOf(vetted).length, 501);
    assert.ok(asked.length <= 5, `${asked.length} questions`);
  });
});

describe('an address', () => {
  test('that is taken is known from one that is free', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    try {
      assert.match((await whyTaken(endpoint(`127.0.0.1:${port}`))) ?? '', /is taken by another process/);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    assert.equal(await whyTaken(endpoint(`127.0.0.1:${port}`)), undefined);
    assert.equal(await whyTaken(endpoint(`[::1]:${port}`)), undefined);
  });

  test('that is the path of a socket is taken only while somebody answers there', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'web.sock');
      const why = () => whyTaken(endpoint(file));
      assert.equal(await why(), undefined);
      // A process that is killed leaves its socket behind.
      const child = spawn(process.execPath, [
        '-e',
        `require('node:net').createServer().listen(${JSON.stringify(file)}, () => console.log('here'))`,
      ]);
      await once(child.stdout, 'data');
      assert.match((await why()) ?? '', /is taken by another process/);
      child.kill('SIGKILL');
      await once(child, 'exit');
      assert.ok((await stat(file)).isSocket());
      assert.equal(await why(), undefined);
    }));

  test('that is a path where no socket can be says what to do', () =>
    inDirectory(async (directory) => {
      await writeFile(path.join(directory, 'file'), '');
      assert.match(
        (await whyTaken(endpoint(`${directory}/none/web.sock`))) ?? '',
        /does not exist: create it/,
      );
      assert.match((await whyTaken(endpoint(`${directory}/file`))) ?? '', /is no socket: remove it/);
    }));

  test('that is not one of this machine says so', async () => {
    const foreign = endpoint('192.0.2.1:80');
    assert.match((await whyTaken(foreign)) ?? '', /cannot listen on 192\.0\.2\.1:80 \(EADDRNOTAVAIL\)/);
  });
});

test('a limit of open files is told with what to do about it, anything else as it is', () => {
  assert.match(
    explainComplaint('[ALERT] (1) : [haproxy.main()] Cannot raise FD limit to 200028, limit is 1000.'),
    /Allow it 200028 open files \(LimitNOFILE of the unit, ulimit -n\), or lower maxconn in haproxy\.global$/,
  );
  assert.equal(explainComplaint('unknown keyword'), 'unknown keyword');
});
