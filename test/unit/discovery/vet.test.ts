import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { buildStructure, HaproxySection } from '@tandem/discovery';
import type { Allowance, Endpoint, Structure, VetDeps } from '@tandem/discovery/testing';
import {
  endpointsOf,
  explainComplaint,
  formatBind,
  parseEndpoint,
  vetStructure,
  whyTaken,
} from '@tandem/discovery/testing';

import { service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { structureOf } from './support.ts';

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

function vet(
  structure: Structure,
  own: VetDeps,
  allowances: readonly Allowance[] = [],
): ReturnType<typeof vetStructure> {
  return vetStructure({ structure, allowances }, own);
}

function namesOf(vetted: Awaited<ReturnType<typeof vetStructure>>): string[] {
  assert.equal(vetted.kind, 'accepted');
  return vetted.kind === 'accepted' ? vetted.structure.proxies.map(({ name }) => name) : [];
}

describe('vetting a structure', () => {
  test('takes one that is in order as it is', async () => {
    const wanted = structureOf([web, api]);

    assert.deepEqual(await vet(wanted, deps()), {
      kind: 'accepted',
      structure: wanted,
      setAside: [],
      limits: { plain: new Map(), unserved: new Set() },
      hasTaken: false,
    });
  });

  test('sets the service aside that HAProxy refuses, and only that', async () => {
    const vetted = await vet(structureOf([web, api, odd]), deps());

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
      await vet(structureOf([web, odd]), deps({ check })),
      await vet(structureOf([web, odd]), deps({ check })),
    ];
    assert.deepEqual(first, second);
    assert.deepEqual(first.kind === 'accepted' && first.setAside, [
      { service: 'odd', reason: '[ALERT] : unknown word' },
    ]);
  });

  test('goes on with the last good version of a service that is refused', async () => {
    const before = service('odd', '127.0.0.1:3212');
    const vetted = await vet(structureOf([web, odd]), deps({ good: structureOf([before]) }));

    assert.deepEqual(namesOf(vetted), ['odd', 'web']);
    assert.equal(vetted.kind === 'accepted' && vetted.structure.proxies[0]?.serverOptions, '');
  });

  test('refuses the whole when what is common to all services is wrong', async () => {
    const vetted = await vet(structureOf([web]), deps({ check: () => Promise.resolve('bad global') }));

    assert.deepEqual(vetted, {
      kind: 'refused',
      complaint: 'bad global',
      limits: { plain: new Map(), unserved: new Set() },
    });
  });

  test('tries new addresses, and none that HAProxy listens on itself', async () => {
    const tried: string[] = [];
    const taken = (endpoint: Endpoint) => {
      tried.push(formatBind(endpoint));
      return Promise.resolve('taken');
    };
    const wanted = structureOf([service('web', '*:3210'), api]);

    const vetted = await vet(wanted, deps({ own: [endpoint('127.0.0.1:3210')], whyTaken: taken }));

    assert.deepEqual(tried, ['127.0.0.1:3211']);
    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('tries no address while a HAProxy runs whose structure nobody knows', async () => {
    const vetted = await vet(
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

    await vet(wanted, deps({ own: [endpoint('127.0.0.1:21001')], whyTaken }));

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

    const vetted = await vet(buildStructure(config, [web]), deps({ whyTaken }));

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

    const vetted = await vet(withLines(['nonsense']), deps({ good: withLines(['maxconn 5']) }));

    assert.ok(vetted.kind === 'accepted');
    assert.deepEqual(vetted.setAside, [{ sharedFrontend: 'edge', reason: 'unknown word' }]);
    assert.deepEqual(vetted.structure.sharedFrontends[0]?.lines, ['maxconn 5']);
  });

  test('gives nobody an address back that somebody else has now', async () => {
    const good = structureOf([service('odd', '127.0.0.1:3210')]);
    const vetted = await vet(structureOf([service('web', '*:3210'), odd]), deps({ good }));
    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('asks HAProxy nothing of backends that wait', async () => {
    const asked: string[] = [];
    const check = (text: string) => {
      asked.push(text);
      return Promise.resolve(text.includes('nonsense') ? 'unknown word' : undefined);
    };
    const config = HaproxySection.parse({ port_range: { http: '21000-21002', spares: 500 } });
    const vetted = await vet(buildStructure(config, [web, odd]), deps({ check }));
    assert.equal(namesOf(vetted).length, 501);
    assert.ok(asked.length <= 5, `${asked.length} questions`);
  });

  test('finds one bad service of many in few runs, whether HAProxy names its line or not', async () => {
    const many = Array.from({ length: 200 }, (_, index) => service(`s${index}`, 4_000 + index));
    for (const [namesLine, limit] of [
      [true, 2],
      [false, 20],
    ] as const) {
      const asked: string[] = [];
      const check = (text: string) => {
        asked.push(text);
        const line = text.split('\n').findIndex((one) => one.includes('nonsense')) + 1;
        return Promise.resolve(
          line === 0 ? undefined : `[ALERT] (1) : ${namesLine ? `[x.cfg:${line}] : ` : ''}unknown word`,
        );
      };
      const vetted = await vet(structureOf([...many, odd]), deps({ check }));
      assert.equal(namesOf(vetted).length, 200);
      assert.deepEqual(
        vetted.kind === 'accepted' && vetted.setAside.map((one) => 'service' in one && one.service),
        ['odd'],
      );
      assert.ok(asked.length <= limit, `${asked.length} questions`);
    }
  });

  test('tries the most that instances may add, and leaves it out where it does not go with the service', async () => {
    const allowances = ['web', 'api'].map((name) => ({
      service: name,
      backend: name,
      options: '',
      own: 'backup check inter 86400000ms',
    }));
    for (const says of [
      'cannot check here',
      '[ALERT] (1) : [x.cfg:LINE] : cannot check here',
      "[ALERT] (1) : config: backend 'web': server 'sample-fullest' cannot be checked here",
    ]) {
      const check = (text: string) => {
        const lines = text.split('\n');
        const start = lines.indexOf('backend web');
        const line = lines.findIndex((one, index) => index > start && / check .*disabled$/.test(one)) + 1;
        const isOfWeb = start >= 0 && line > 0 && lines.slice(start, line).every((one) => one !== '');
        return Promise.resolve(isOfWeb ? says.replace('LINE', String(line)) : undefined);
      };
      const vetted = await vet(structureOf([web, api]), deps({ check }), allowances);
      assert.ok(vetted.kind === 'accepted');
      assert.deepEqual(vetted.setAside, []);
      assert.deepEqual([...vetted.limits.plain.keys()], ['web']);
    }
  });

  test('sets a service in a spare aside whose options are refused, and no other', async () => {
    const config = HaproxySection.parse({ port_range: { http: '21000-21002', spares: 2 } });
    const allowances = ['web', 'odd'].map((name, index) => ({
      service: name,
      backend: `tandem-spare-http-${index + 1}`,
      options: name === 'odd' ? 'nonsense' : 'check',
      own: '',
    }));
    const vetted = await vet(buildStructure(config, []), deps(), allowances);
    assert.ok(vetted.kind === 'accepted');
    assert.deepEqual(vetted.setAside, [{ service: 'odd', reason: 'unknown word' }]);
    assert.deepEqual([...vetted.limits.unserved], ['odd']);
    assert.deepEqual(namesOf(vetted), ['tandem-spare-http-1', 'tandem-spare-http-2']);
  });

  test('says also of a structure that is refused what servers of the last good one cannot have', async () => {
    const check = (text: string) =>
      Promise.resolve(
        text.includes('bad global')
          ? 'bad global'
          : / check .*disabled/.test(text)
            ? 'no checks here'
            : undefined,
      );
    const wanted = { ...structureOf([web]), global: ['bad global'] };
    const allowances = [{ service: 'web', backend: 'web', options: '', own: 'check' }];
    const vetted = await vet(wanted, deps({ check, good: structureOf([web]) }), allowances);
    assert.equal(vetted.kind, 'refused');
    assert.deepEqual([...vetted.limits.plain], [['web', 'no checks here']]);
  });

  test('tries ports side by side, and those with one number one after the other', async () => {
    let [now, most] = [0, 0];
    const ports = new Map<number, number>();
    const whyTaken = async (one: Endpoint) => {
      const port = one.kind === 'tcp' ? one.first : 0;
      most = Math.max(most, (now += 1));
      ports.set(port, (ports.get(port) ?? 0) + 1);
      assert.equal(ports.get(port), 1, 'two attempts for one port at a time');
      await sleep(5);
      ports.set(port, 0);
      now -= 1;
      return port === 4_001 ? 'taken' : undefined;
    };
    const services = [4_000, 4_001, 4_002].flatMap((port) => [
      service(`a${port}`, port),
      service(`b${port}`, `[::1]:${port}`),
    ]);
    const vetted = await vet(structureOf(services), deps({ whyTaken }));
    assert.deepEqual(namesOf(vetted), ['a4000', 'a4002', 'b4000', 'b4002']);
    assert.ok(vetted.kind === 'accepted' && vetted.hasTaken);
    assert.equal(most, 3);
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
