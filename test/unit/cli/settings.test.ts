import assert from 'node:assert/strict';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import {
  announcedHost,
  createServiceFiles,
  hostProblems,
  type HostSettings,
  loadHostSettings,
  registryProblems,
} from '@tandem/cli/testing';
import { formatProblem } from '@tandem/core';

const HOST = `host: { name: h, address: 10.0.0.5 }
registry: { zookeeper: { servers: [zk1] }, path_template: '/smart/{service}/here' }
`;

describe('the settings of a host', () => {
  let root = '';
  before(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'tandem-settings-'));
  });
  after(() => rm(root, { recursive: true, force: true }));

  async function settings(host = HOST): Promise<HostSettings> {
    const directory = await mkdtemp(path.join(root, 'host-'));
    await mkdir(path.join(directory, 'services.d'));
    await writeFile(path.join(directory, 'tandem.yaml'), host);
    const loaded = await loadHostSettings(path.join(directory, 'tandem.yaml'));
    assert.ok(loaded.ok, loaded.ok ? '' : loaded.problems.map(formatProblem).join());
    return loaded.value;
  }

  test('registrar.docker is validated with the host file, and its files lie beside that', async () => {
    const host = await settings(`${HOST}registrar:
  docker: { api: 'https://127.0.0.1:2376', tls: { ca_file: tls/ca.pem } }
`);
    const { docker } = host.registrar;
    assert.equal(docker?.tls?.caFile, path.join(path.dirname(host.file), 'tls/ca.pem'));
    assert.deepEqual([docker.resyncMs, docker.holdMs, docker.allowCommands], [30_000, 10_000, false]);
    assert.equal((await settings()).registrar.docker, undefined);
    const standard = await settings(`${HOST}registrar: { docker: {} }\n`);
    assert.equal(standard.registrar.docker?.api.socketPath, '/var/run/docker.sock');

    await writeFile(
      host.file,
      `${HOST}registrar:
  docker:
    api: /var/run/docker.sock
    resync: 0s
    alow_commands: true
`,
    );
    const broken = await loadHostSettings(host.file);
    assert.deepEqual(
      broken.ok ? [] : broken.problems.map((problem) => formatProblem(problem).replace(host.file, 'f')),
      [
        'f:5:10: registrar.docker.api: must be unix:///PATH, http://HOST:PORT or https://HOST:PORT, and nothing more, ' +
          'found "/var/run/docker.sock"',
        'f:6:13: registrar.docker.resync: must be between 1s and 1h, found "0s"',
        'f:7:5: registrar.docker: "alow_commands" is not known here. Known: api, tls, resync, hold, allow_commands. ' +
          'Did you mean "allow_commands"?',
      ],
    );
  });

  function write(host: HostSettings, name: string, text: string): Promise<void> {
    return writeFile(path.join(host.servicesDir, name), text);
  }

  test('have defaults for everything but the servers of the registry', async () => {
    const host = await settings();

    assert.ok(host.registry.kind === 'zookeeper');
    assert.deepEqual(host.registry.zookeeper.servers, [{ host: 'zk1', port: 2181 }]);
    assert.equal(host.registry.zookeeper.sessionTimeoutMs, 16_000);
    assert.equal(host.stateDir, '/var/lib/tandem');
    assert.equal(host.haproxy.configFile, '/run/tandem/haproxy.cfg');
    assert.equal(host.haproxy.masterSocket, '/run/tandem/haproxy-master.sock');
    assert.equal(host.discovery.control, '/run/tandem/discovery.sock');
    assert.equal(host.log.level, 'info');
  });

  test('take the files of sources from there, too, also of sources within sources', async () => {
    const host = await settings();
    const source =
      '{ multi: { sources: { a: { file: { path: a.json } }, b: { file: { path: /b.json } } } } }';
    await write(host, 'web.yaml', `service: web\ndiscover: { listen: 80, source: ${source} }\n`);

    const { discovered } = await createServiceFiles(host).load();
    const config = discovered[0]?.config.source;
    assert.ok(config?.kind === 'multi');
    assert.deepEqual(
      config.options.sources.map(({ source }) => source),
      [path.join(path.dirname(host.file), 'a.json'), '/b.json'].map((file) => ({
        kind: 'file',
        options: { path: file },
      })),
    );
  });

  test('take relative paths from the place of the host file', async () => {
    const host = await settings(
      `${HOST}state_dir: s\nhaproxy: { config_file: r/h.cfg, runtime_socket: r/h.sock }\n` +
        'registrar: { heartbeat_file: r/alive }\n',
    );

    const directory = path.dirname(host.file);
    assert.equal(host.stateDir, path.join(directory, 's'));
    assert.equal(host.haproxy.configFile, path.join(directory, 'r/h.cfg'));
    assert.equal(host.haproxy.masterSocket, path.join(directory, 'r/h-master.sock'));
    assert.equal(host.discovery.control, path.join(directory, 'r/discovery.sock'));
    assert.equal(host.registrar.control, path.join(directory, 'r/registrar.sock'));
    assert.equal(host.registrar.heartbeatFile, path.join(directory, 'r/alive'));
  });

  test('take the files of the registry from there too, and say which of them are no good', async () => {
    const zookeeper = `
    servers: [zk1]
    tls: { ca_file: tls/ca.pem }
    auth: { credentials_file: /nowhere/zk.auth }`;
    const host = await settings(`host: { address: 10.0.0.5 }\nregistry:\n  zookeeper:${zookeeper}\n`);

    assert.ok(host.registry.kind === 'zookeeper');
    const { tls, auth } = host.registry.zookeeper;
    const directory = path.dirname(host.file);
    assert.equal(tls?.caFile, path.join(directory, 'tls/ca.pem'));
    assert.equal(auth?.credentialsFile, '/nowhere/zk.auth');
    assert.deepEqual((await registryProblems(host)).map(formatProblem), [
      `${host.file}:5:21: registry.zookeeper.tls.ca_file: ${directory}/tls/ca.pem does not exist. Create it, or name another one`,
      `${host.file}:6:31: registry.zookeeper.auth.credentials_file: /nowhere/zk.auth does not exist. Create it, or name another one`,
    ]);
    assert.deepEqual(await registryProblems(await settings()), []);
  });

  test('give a service without a path the one of the template', async () => {
    const host = await settings();
    await write(host, 'web.yaml', 'service: web\nregister: { port: 80 }\ndiscover: { listen: 3210 }\n');
    await write(host, 'db.yaml', 'service: db\npath: /own/db\nregister: { port: 5432 }\n');

    const { registrations, discovered, problems } = await createServiceFiles(host).load();

    assert.deepEqual(problems, []);
    assert.deepEqual(
      registrations.map(({ service, path: at }) => `${service} ${at}`),
      ['db /own/db', 'web /smart/web/here'],
    );
    assert.deepEqual(
      discovered.map(({ service, config }) => `${service} ${config.listen}`),
      ['web 127.0.0.1:3210'],
    );
  });

  test('keep the last good version of a file that breaks, and drop that of a file that goes', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'a.yaml', 'service: a\nregister: { port: 1 }\n');
    await write(host, 'b.yaml', 'service: b\nregister: { port: 2 }\n');
    await files.load();

    await write(host, 'a.yaml', 'service: a\nregister: { port: nonsense }\n');
    await rm(path.join(host.servicesDir, 'b.yaml'));
    const broken = await files.load();
    await write(host, 'a.yaml', 'service: a\nregister: { port: 3 }\n');
    const mended = await files.load();

    assert.deepEqual(
      broken.registrations.map(({ service, config }) => [service, config.port]),
      [['a', 1]],
    );
    assert.deepEqual(
      broken.problems.map(({ line, path: at }) => [line, at]),
      [[2, 'register.port']],
    );
    assert.deepEqual(
      mended.registrations.map(({ service, config }) => [service, config.port]),
      [['a', 3]],
    );
    assert.deepEqual(mended.problems, []);
  });

  test('keep a good file in force when a later one claims its service or its address', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 3210 }\n');
    await files.load();
    await write(host, 'a.yaml', 'service: b\ndiscover: { listen: 4000 }\n');
    await write(host, 'c.yaml', 'service: c\ndiscover: { listen: 3210 }\n');

    const { discovered, problems } = await files.load();

    assert.deepEqual(
      discovered.map(({ service, config }) => `${service} ${config.listen}`),
      ['b 127.0.0.1:3210'],
    );
    assert.deepEqual(problems.map(({ file }) => path.basename(file)).toSorted(), ['a.yaml', 'c.yaml']);
  });

  test('keep an address with the file that had it, when another in force is edited onto it', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'a.yaml', 'service: a\ndiscover: { listen: 3210 }\n');
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 4000 }\n');
    await files.load();
    await write(host, 'a.yaml', 'service: a\ndiscover: { listen: 4000, balance: leastconn }\n');
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 4000, balance: random }\n');
    const edited = await files.load();
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 3210, balance: random }\n');
    const swapped = await files.load();

    const shown = ({ discovered }: typeof edited) =>
      discovered.map(({ service, config }) => `${service} ${config.listen} ${config.balance}`);
    assert.deepEqual(shown(edited), ['a 127.0.0.1:3210 undefined', 'b 127.0.0.1:4000 random']);
    assert.deepEqual(
      edited.problems.map((problem) => formatProblem(problem).replaceAll(`${host.servicesDir}/`, '')),
      [
        'a.yaml:2:21: discover.listen: the address 127.0.0.1:4000 is defined twice. Change it here or in b.yaml',
      ],
    );
    assert.deepEqual(shown(swapped), ['a 127.0.0.1:4000 leastconn', 'b 127.0.0.1:3210 random']);
    assert.deepEqual(swapped.problems, []);
  });

  test('have a service twice the same as long as its file says the same', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'a.yaml', 'service: a\ndiscover: { listen: 3210 }\n');
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 4000 }\n');
    const before = await files.load();
    await write(host, 'a.yaml', '# touched\nservice: a\ndiscover: { listen: 3210 }\n');
    await write(host, 'b.yaml', 'service: b\ndiscover: { listen: 4001 }\n');
    const after = await files.load();

    assert.equal(after.discovered[0], before.discovered[0]);
    assert.notEqual(after.discovered[1], before.discovered[1]);
  });

  test('let no service listen where the host file already does', async () => {
    const haproxy = `haproxy:
  config_file: run/haproxy.cfg
  runtime_socket: run/haproxy.sock
  shared_frontends: { web: { listen: ['*:80', '[::1]:443'] } }
  extra_sections: { listen stats: [mode http, 'bind :9000,127.0.0.1:9001'] }
discovery: { control: run/discovery.sock }
`;
    const host = await settings(`${HOST}${haproxy}`);
    const run = path.join(path.dirname(host.file), 'run');
    const listens = {
      a: '127.0.0.1:80',
      b: '127.0.0.1:443',
      c: "'[::1]:443'",
      d: '10.0.0.5:9000',
      e: `${run}/discovery.sock`,
      f: `${run}/x/../haproxy.sock`,
      g: '9001',
    };
    for (const [service, listen] of Object.entries(listens))
      await write(host, `${service}.yaml`, `service: ${service}\ndiscover: { listen: ${listen} }\n`);

    const { discovered, problems } = await createServiceFiles(host).load();

    assert.deepEqual(
      discovered.map(({ service }) => service),
      ['b'],
    );
    assert.deepEqual(
      problems.map(({ reason }) => reason.replaceAll(run, 'run')),
      [
        'the address 127.0.0.1:80 overlaps the address *:80',
        'the address [::1]:443 is defined twice',
        'the address 10.0.0.5:9000 overlaps the address *:9000',
        'the path run/discovery.sock is defined twice',
        'the path run/haproxy.sock is defined twice',
        'the address 127.0.0.1:9001 is defined twice',
      ],
    );
  });

  test('give a host on a shared frontend to one service, and know their names', async () => {
    const host = await settings(
      `${HOST}haproxy: { shared_frontends: { web: { listen: 80 }, api: { listen: 81 } } }\n`,
    );
    const file = (service: string, frontend: string, hosts: string) =>
      `service: ${service}\ndiscover: { shared_frontend: ${frontend}, hosts: [${hosts}] }\n`;
    await write(host, 'a.yaml', file('a', 'web', 'a.example.com, b.example.com'));
    await write(host, 'b.yaml', file('b', 'web', 'B.example.com'));
    await write(host, 'c.yaml', file('c', 'api', 'a.example.com'));
    await write(host, 'd.yaml', file('d', 'wbe', 'd.example.com'));

    const { discovered, problems } = await createServiceFiles(host).load();

    assert.deepEqual(
      discovered.map(({ service }) => service),
      ['a', 'c'],
    );
    assert.deepEqual(
      problems.map((problem) => formatProblem(problem).replaceAll(`${path.dirname(host.file)}/`, '')),
      [
        'services.d/d.yaml:2:30: discover.shared_frontend: "wbe" is not one of haproxy.shared_frontends. ' +
          'Known: web, api. Did you mean "web"?',
        'services.d/b.yaml:2:43: discover.hosts.0: the host b.example.com on the shared frontend "web" is defined twice. ' +
          'Change it here or in services.d/a.yaml',
      ],
    );
  });

  test('must not claim one place twice in the host file itself, nor have sockets that the kernel does not take', async () => {
    const clash = await settings(`${HOST}haproxy:
  runtime_socket: run/s.sock
  shared_frontends: { a: { listen: 80 }, b: { listen: '*:80' } }
discovery: { control: run/s.sock }
`);
    const beat = await settings(
      `${HOST}haproxy: { config_file: run/h }\nregistrar: { heartbeat_file: run/h }\n`,
    );
    assert.match(
      (await hostProblems(beat)).map(formatProblem).join(),
      /the path \S+run\/h is defined twice\. Change it here or at registrar\.heartbeat_file/,
    );
    const long = await settings(`${HOST}discovery: { control: ${'x'.repeat(80)}/s }\n`);

    assert.deepEqual(
      (await hostProblems(clash)).map((problem) =>
        formatProblem(problem).replaceAll(`${path.dirname(clash.file)}/`, ''),
      ),
      [
        'tandem.yaml:4:19: haproxy.runtime_socket: the path run/s.sock is defined twice. Change it here or at discovery.control',
        'tandem.yaml:5:55: haproxy.shared_frontends.b.listen: the address *:80 overlaps the address 127.0.0.1:80. ' +
          'Change it here or at haproxy.shared_frontends.a.listen',
      ],
    );
    assert.match(
      (await hostProblems(long)).map(formatProblem).join(),
      /discovery\.control: .*too long for a socket/,
    );
  });

  test('set aside what does not fit to the routes of the host file, and keep what was in force', async () => {
    const host = await settings(`${HOST}haproxy:
  shared_frontends: { web: { listen: 80 } }
  port_range: { http: 21000-21009 }
`);
    const files = createServiceFiles(host);
    const shared = (name: string, more: string) =>
      write(host, `${name}.yaml`, `service: ${name}\ndiscover: { shared_frontend: web, hosts: [${more}] }\n`);
    await shared('b', 'x.example, y.example');
    await write(host, 'c.yaml', 'service: c\ndiscover: { listen: 21000 }\n');
    assert.deepEqual((await files.load()).problems, []);

    await shared('a', 'z.example, X.example');
    await write(host, 'c.yaml', 'service: c\ndiscover:\n  listen: 21000\n  mode: tcp\n');
    await write(host, 'd.yaml', 'service: d\ndiscover: { shared_frontend: wbe, hosts: [d] }\n');
    const { discovered, problems } = await files.load();

    assert.deepEqual(
      discovered.map(({ service, config }) => `${service} ${config.mode} ${config.hosts.join()}`),
      ['b http x.example,y.example', 'c http '],
    );
    assert.deepEqual(
      problems.map((problem) => formatProblem(problem).slice(host.servicesDir.length + 1)).toSorted(),
      [
        `a.yaml:2:54: discover.hosts.1: the host x.example on the shared frontend "web" is defined twice. Change it here or in ${host.servicesDir}/b.yaml`,
        'c.yaml:4:9: discover.mode: port 21000 is one of the http ports of haproxy.port_range, and the service has mode tcp. Set mode: http, or listen outside 127.0.0.1:21000-21009 (haproxy.port_range)',
        'd.yaml:2:30: discover.shared_frontend: "wbe" is not one of haproxy.shared_frontends. Known: web. Did you mean "web"?',
      ],
    );
  });

  test('refuse a place of haproxy.cfg that no map file can have', async () => {
    const directory = await mkdtemp(path.join(root, 'odd host-'));
    const file = path.join(directory, 'tandem.yaml');
    await writeFile(file, `${HOST}haproxy: { config_file: h.cfg, port_range: { http: 1-2 } }\n`);

    const loaded = await loadHostSettings(file);

    assert.deepEqual(loaded.ok ? [] : loaded.problems.map(({ line, path: at }) => [line, at]), [
      [3, 'haproxy.config_file'],
    ]);
  });

  test('keep an instance in force when another file claims its place in the registry', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'web.yaml', 'service: web\nregister: { port: 80 }\n');
    await files.load();
    await write(host, 'api.yaml', 'service: api\npath: /smart/web/here\nregister: { port: 80 }\n');
    await write(host, 'b.yaml', 'service: b\npath: /smart/web/here\nregister: { port: 81 }\n');
    await write(host, 'c.yaml', 'service: c\nregister: { port: 80 }\n');

    const { registrations, problems } = await files.load();

    assert.deepEqual(registrations.map(({ service }) => service).toSorted(), ['b', 'c', 'web']);
    assert.deepEqual(
      problems.map((problem) => formatProblem(problem).replaceAll(`${host.servicesDir}/`, '')),
      [
        'api.yaml:3:19: register.port: the instance on port 80 below /smart/web/here is defined twice. ' +
          'Change it here or in web.yaml',
      ],
    );
  });

  test('let one service of a path have the node without a number, unless the record stands in the name', async () => {
    const host = await settings();
    const file = (service: string, port: number, more: string) =>
      `service: ${service}\npath: /shared\nregister:\n  port: ${port}\n  ${more}\n`;
    await write(host, 'a.yaml', file('a', 1, 'node_type: ephemeral'));
    await write(host, 'b.yaml', file('b', 2, 'node_type: persistent'));
    await write(host, 'c.yaml', file('c', 3, 'node_type: persistent_sequential'));
    await write(host, 'd.yaml', file('d', 4, 'node_type: ephemeral\n  path_encoding: true'));

    const { registrations, problems } = await createServiceFiles(host).load();

    assert.deepEqual(
      registrations.map(({ service }) => service),
      ['a', 'c', 'd'],
    );
    assert.deepEqual(
      problems.map((problem) => formatProblem(problem).replaceAll(`${host.servicesDir}/`, '')),
      [
        'b.yaml:5:14: register.node_type: the only node without a number below /shared is defined twice. ' +
          'Change it here or in a.yaml',
      ],
    );
  });

  test('tell instances of one path apart by the address and the name that a file gives them', async () => {
    const host = await settings();
    const file = (service: string, more: string) =>
      `service: ${service}\npath: /shared\nregister: { port: 80${more} }\n`;
    await write(host, 'a.yaml', file('a', ''));
    await write(host, 'b.yaml', file('b', ', address: 10.9.9.9'));
    await write(host, 'c.yaml', file('c', ', instance_id: blue'));
    await write(host, 'd.yaml', file('d', ', instance_id: blue, address: 10.9.9.9'));
    await write(host, 'e.yaml', file('e', ', instance_id: blue, address: 10.9.9.9'));
    await write(host, 'f.yaml', file('f', `, address: ${host.host.address}`));

    const { registrations, problems } = await createServiceFiles(host).load();

    assert.deepEqual(
      registrations.map(({ service }) => service),
      ['a', 'b', 'c', 'd'],
    );
    assert.deepEqual(
      problems.map((problem) => formatProblem(problem).replaceAll(`${host.servicesDir}/`, '')),
      [
        'e.yaml:3:19: register.port: the instance called blue on port 80 of 10.9.9.9 below /shared is defined ' +
          'twice. Change it here or in d.yaml',
        'f.yaml:3:19: register.port: the instance on port 80 below /shared is defined twice. ' +
          'Change it here or in a.yaml',
      ],
    );
  });

  test('find drain files beside the host file, like everything that is relative', async () => {
    const host = await settings(`${HOST}registrar: { drain_file: down/all }\n`);
    const directory = path.dirname(host.file);
    await write(host, 'a.yaml', 'service: a\nregister: { port: 1, drain_file: down/a }\n');
    await write(host, 'b.yaml', 'service: b\nregister: { port: 2, drain_file: /run/b }\n');

    const { registrations } = await createServiceFiles(host).load();

    assert.equal(host.registrar.drainFile, path.join(directory, 'down/all'));
    assert.deepEqual(
      registrations.map(({ config }) => config.drainFile),
      [path.join(directory, 'down/a'), '/run/b'],
    );
  });

  test('take a host address that others can use, and no other', async () => {
    const withAddress = (address: string) => HOST.replace('10.0.0.5', `'${address}'`);
    const literals = ['127.0.0.1', '::1', '10.0.0.5', '2001:db8::1', '0.0.0.1', '::ffff:10.0.0.5'];
    for (const address of [...literals, 'web-1', 'db1.example.net']) {
      assert.equal((await settings(withAddress(address))).host.address, address);
    }
    const nowhere = ['0.0.0.0', '::', '0:0:0:0:0:0:0:0', '::ffff:0.0.0.0', 'fe80::1%eth0'];
    for (const address of [...nowhere, '10.0.0', '10.0.0.256', '0x7f.1', 'a b', 'web-1:80', '-a']) {
      const file = path.join(root, 'bad.yaml');
      await writeFile(file, withAddress(address));
      const loaded = await loadHostSettings(file);
      assert.deepEqual(loaded.ok ? address : loaded.problems.map(({ path: at }) => at), ['host.address']);
    }
  });

  test('say that a services_dir is missing, and keep what was read from it before', async () => {
    const host = await settings();
    const files = createServiceFiles(host);
    await write(host, 'a.yaml', 'service: a\nregister: { port: 1 }\n');
    await files.load();
    await rm(host.servicesDir, { recursive: true });

    const { registrations, problems } = await files.load();

    assert.deepEqual(
      registrations.map(({ service }) => service),
      ['a'],
    );
    assert.match(problems.map(formatProblem).join(), /services\.d: does not exist/);
  });
});

describe('the host that is announced', () => {
  const settings = { file: '/etc/tandem/tandem.yaml' } as HostSettings;

  test('is the one of the settings', () => {
    const host = { name: 'h', address: '10.0.0.5', labels: { zone: 'a' } };

    assert.deepEqual(announcedHost({ ...settings, host }), { ok: true, value: host });
  });

  test('needs a name that can stand in a registry and, with address and port, in HAProxy', () => {
    for (const name of ['', 'a b', 'ä', 'h'.repeat(64)]) {
      const announced = announcedHost({ ...settings, host: { name, address: undefined, labels: {} } });

      assert.ok(!announced.ok);
      assert.deepEqual(
        announced.problems.map(({ path: at, remedy }) => [at, remedy]),
        [
          ['host.name', 'Set host.name'],
          ['host.address', 'Set host.address to what other hosts reach it by'],
        ],
      );
    }
    const host = { name: 'h'.repeat(63), address: '10.0.0.5', labels: {} };
    assert.ok(announcedHost({ ...settings, host }).ok);
  });

  test('needs an address that other hosts can reach', () => {
    const announced = announcedHost({ ...settings, host: { name: 'h', address: undefined, labels: {} } });

    assert.ok(!announced.ok);
    assert.deepEqual(announced.problems.map(formatProblem), [
      '/etc/tandem/tandem.yaml:1:1: host.address: this machine has no address but loopback ones. ' +
        'Set host.address to what other hosts reach it by',
    ]);
  });
});
