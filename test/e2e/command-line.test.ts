import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { type Finished, tandem } from '../support/tandem.ts';

const HOST = `host: { name: h, address: 127.0.0.1 }
registry: { zookeeper: { servers: ['127.0.0.1:2181'] } }
state_dir: state
haproxy: { config_file: run/haproxy.cfg, runtime_socket: run/haproxy.sock }
`;
const WEB = `service: web
register:
  port: 8080
  checks:
    - http: { path: /health, interval: 2s }
discover: { listen: '127.0.0.1:3210' }
`;

interface BadInput {
  readonly what: string;
  readonly host?: string;
  readonly services?: Readonly<Record<string, string>>;
  /** What the message must say, from the file's name on. */
  readonly says: RegExp;
}

const BAD_INPUTS: readonly BadInput[] = [
  {
    what: 'a mistyped check',
    services: { 'web.yaml': WEB.replace('http:', 'htpp:') },
    says: /web\.yaml:5:7: register\.checks\[0\]: "htpp" is not known here\. Known: http, tcp, .*\. Did you mean "http"\?/,
  },
  {
    what: 'a mistyped key of the host file',
    host: HOST.replace('state_dir', 'state_dri'),
    says: /tandem\.yaml:3:1: "state_dri" is not known here\. .*Did you mean "state_dir"\?/,
  },
  {
    what: 'a bad duration',
    services: { 'web.yaml': WEB.replace('2s', '2 seconds') },
    says: /web\.yaml:5:40: register\.checks\[0\]\.http\.interval: must be a duration such as 500ms, 2s or 1m, found "2 seconds"/,
  },
  {
    what: 'a port out of range',
    services: { 'web.yaml': WEB.replace('8080', '80800') },
    says: /web\.yaml:3:9: register\.port: must be at most 65535, found 80800/,
  },
  {
    what: 'a missing key',
    host: HOST.replace(/^registry.*\n/m, ''),
    says: /tandem\.yaml:1:1: registry: is required but missing\. Give it a map of keys/,
  },
  {
    what: 'a path behind a server',
    host: HOST.replace("'127.0.0.1:2181'", "'zk1:2181/smartstack'"),
    says: /tandem\.yaml:2:36: registry\.zookeeper\.servers\[0\]: must be a server without a path, found "zk1:2181\/smartstack"\. Write zk1:2181, and set chroot: \/smartstack beside servers/,
  },
  {
    what: 'nodes for their creator alone, made by nobody',
    host: HOST.replace("2181']", "2181'], acl: creator-all"),
    says: /tandem\.yaml:2:60: registry\.zookeeper\.acl: needs credentials, found "creator-all"\. Set auth too, or leave acl at open/,
  },
  {
    what: 'an authority that is not there',
    host: HOST.replace("2181']", "2181'], tls: { ca_file: ca.pem }"),
    says: /tandem\.yaml:2:71: registry\.zookeeper\.tls\.ca_file: \/.*\/ca\.pem does not exist\. Create it, or name another one/,
  },
  {
    what: 'a bad choice',
    services: { 'web.yaml': WEB.replace("3210'", "3210', mode: htttp") },
    says: /web\.yaml:6:45: discover\.mode: found "htttp".* Known: http, tcp\. Did you mean "http"\?/,
  },
  {
    what: 'text that is not YAML',
    services: { 'web.yaml': `${WEB}path: [\n` },
    says: /web\.yaml:\d+:\d+: not valid YAML: /,
  },
  {
    what: 'the same key twice',
    services: { 'web.yaml': `${WEB}service: api\n` },
    says: /web\.yaml:7:1: not valid YAML: Map keys must be unique/,
  },
  {
    what: 'the same service in two files',
    services: { 'web.yaml': WEB, 'web-copy.yaml': WEB },
    says: /web\.yaml:1:10: service: the service "web" is defined twice\. Change it here or in .*web-copy\.yaml/,
  },
  {
    what: 'two services on one address',
    services: { 'web.yaml': WEB, 'x.yaml': WEB.replace('service: web', 'service: x') },
    says: /x\.yaml:6:21: discover\.listen: the address 127\.0\.0\.1:3210 is defined twice\. Change it here or in .*web\.yaml/,
  },
  {
    what: 'two services that register as one instance',
    services: {
      'web.yaml': WEB,
      'x.yaml': 'service: x\npath: /services/web\nregister: { port: 8080 }\n',
    },
    says: /x\.yaml:3:19: register\.port: the instance on port 8080 below \/services\/web is defined twice\. Change it here or in .*web\.yaml/,
  },
  {
    what: 'an address that is none of one host',
    host: HOST.replace('127.0.0.1 }', '0.0.0.0 }'),
    says: /tandem\.yaml:1:\d+: host\.address: must be the address of one host, not of all its interfaces/,
  },
  {
    what: 'a host name that is too long',
    host: HOST.replace('name: h,', `name: ${'h'.repeat(64)},`),
    says: /tandem\.yaml:1:\d+: host\.name: must have at most 63 characters/,
  },
  {
    what: 'a server that cannot be one',
    host: HOST.replace('127.0.0.1:2181', 'zk1:99999'),
    says: /tandem\.yaml:2:36: registry\.zookeeper\.servers\[0\]: must be a server with a port from 1 to 65535, found "zk1:99999"/,
  },
  {
    what: 'two registries at once',
    host: HOST.replace('registry: {', 'registry: { memory: {},'),
    says: /tandem\.yaml:2:11: registry: must have exactly one kind of registry \(known: zookeeper, memory\)/,
  },
  {
    what: 'a name that could become another line',
    services: { 'web.yaml': WEB.replace('service: web', 'service: "web\\n  bind *:80"') },
    says: /web\.yaml:1:10: service: must start with a letter or digit/,
  },
  {
    what: 'server options that could become another command',
    services: { 'web.yaml': WEB.replace("3210'", "3210', server_options: 'check; shutdown'") },
    says: /web\.yaml:6:\d+: discover\.server_options: may hold only words/,
  },
  {
    what: 'lines that HAProxy does not take',
    host: HOST.replace('haproxy: {', 'haproxy: { defaults: [nonsense here],'),
    says: /tandem\.yaml:1:1: haproxy: haproxy refuses the result .*\n.*unknown keyword 'nonsense'/,
  },
  {
    what: 'server options that no spare can have',
    host: HOST.replace('haproxy: {', 'haproxy: { port_range: { http: 3210-3219 },'),
    services: { 'web.yaml': WEB.replace("3210'", "3210', server_options: 'check inter banana'") },
    says: /haproxy refuses the result .*\n.*unexpected character 'b'/,
  },
  {
    what: 'a template that is not there',
    host: `${HOST}discovery: { templates: [{ template: nginx.hbs, target: nginx.conf }] }\n`,
    says: /tandem\.yaml:5:\d+: discovery\.templates\[0\]\.template: \/.*nginx\.hbs does not exist\. Create it, or name another one/,
  },
  {
    what: 'two files of the host file that are one',
    host: `${HOST}discovery: { control: run/haproxy.sock }\n`,
    says: /tandem\.yaml:4:\d+: haproxy\.runtime_socket: the path \/.*haproxy\.sock is defined twice\. Change it here or at discovery\.control/,
  },
  {
    what: 'an address that is part of another',
    services: { 'web.yaml': WEB, 'x.yaml': "service: x\ndiscover: { listen: '*:3210' }\n" },
    says: /x\.yaml:2:21: discover\.listen: the address \*:3210 overlaps the address 127\.0\.0\.1:3210\. Change it here or in .*web\.yaml/,
  },
  {
    what: 'a shared frontend that nobody has',
    host: HOST.replace('haproxy: {', 'haproxy: { shared_frontends: { public: { listen: 8000 } },'),
    services: { 'x.yaml': 'service: x\ndiscover: { shared_frontend: pubilc, hosts: [x.example.com] }\n' },
    says: /x\.yaml:2:30: discover\.shared_frontend: "pubilc" is not one of .*Known: public\. Did you mean "public"\?/,
  },
  {
    what: 'a kind of source that is not known',
    services: { 'x.yaml': 'service: x\ndiscover: { listen: 1, source: { sttaic: {} } }\n' },
    says: /x\.yaml:2:\d+: discover\.source: "sttaic" is not known here\. .*Did you mean "static"\?/,
  },
  {
    what: 'a range of ports the wrong way round',
    host: HOST.replace('haproxy: {', 'haproxy: { port_range: { http: 22000-21000 },'),
    says: /tandem\.yaml:4:\d+: haproxy\.port_range\.http: must be at most 4096 ports from 1 to 65535, lowest first/,
  },
  {
    what: 'a list where keys belong',
    services: { 'web.yaml': '- service: web\n' },
    says: /web\.yaml:1:1: must be a map of keys, found a list/,
  },
];

function assertNoStack({ stdout, stderr }: Finished): void {
  assert.doesNotMatch(stdout + stderr, /\n\s+at /);
}

describe('the command line', () => {
  let directory = '';
  before(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'tandem-cli-'));
  });
  after(() => rm(directory, { recursive: true, force: true }));

  async function configure(input: Pick<BadInput, 'host' | 'services'>): Promise<string> {
    const at = await mkdtemp(path.join(directory, 'config-'));
    await mkdir(path.join(at, 'services.d'));
    await writeFile(path.join(at, 'tandem.yaml'), input.host ?? HOST);
    for (const [name, text] of Object.entries(input.services ?? { 'web.yaml': WEB })) {
      await writeFile(path.join(at, 'services.d', name), text);
    }
    return at;
  }

  for (const input of BAD_INPUTS) {
    test(`check names place, reason and remedy of ${input.what}, and exits with 2`, async () => {
      const at = await configure(input);

      const finished = await tandem(['check', '--config', path.join(at, 'tandem.yaml')]);

      assert.equal(finished.code, 2, finished.stderr);
      assert.match(finished.stderr, input.says);
      assert.equal(finished.stdout, '');
      assertNoStack(finished);
    });
  }

  for (const command of ['register', 'discover', 'render']) {
    test(`${command} refuses a bad host file like check does, and touches nothing`, async () => {
      const at = await configure({ host: HOST.replace('state_dir', 'state_dri') });

      const finished = await tandem([command, '--config', path.join(at, 'tandem.yaml')]);

      assert.equal(finished.code, 2, finished.stderr);
      assert.match(finished.stderr, /tandem\.yaml:3:1: "state_dri" is not known here/);
      assertNoStack(finished);
      assert.deepEqual((await readdir(at)).toSorted(), ['services.d', 'tandem.yaml']);
    });

    test(`${command} says what is missing when there is no host file`, async () => {
      const finished = await tandem([command, '--config', path.join(directory, 'nowhere.yaml')]);

      assert.equal(finished.code, 2, finished.stderr);
      assert.match(finished.stderr, /nowhere\.yaml: does not exist\. Create it, or name another one/);
      assertNoStack(finished);
    });
  }

  test('check says in one line what is in order', async () => {
    const at = await configure({});

    const finished = await tandem(['check', '--config', path.join(at, 'tandem.yaml')]);

    assert.equal(finished.code, 0, finished.stderr);
    assert.match(
      finished.stdout,
      /^ok: .*1 service files, 1 registered, 1 discovered; haproxy takes the result\n$/,
    );
  });

  test('check says which options instances could add and HAProxy would not take', async () => {
    const web = WEB.replace("3210'", "3210', server_options: check-proto h1");
    const at = await configure({ services: { 'web.yaml': web } });

    const finished = await tandem(['check', '--config', path.join(at, 'tandem.yaml')]);

    assert.equal(finished.code, 0, finished.stderr);
    assert.match(
      finished.stdout,
      /^ok: .*takes the result, but not all that instance_options let instances add:\n/,
    );
  });

  test('render prints what would be written, and says when a source is silent', async () => {
    const host = HOST.replace('127.0.0.1:2181', '127.0.0.1:1');
    const config = path.join(await configure({ host }), 'tandem.yaml');

    const offline = await tandem(['render', '--config', config, '--offline']);
    const silent = await tandem(['render', '--config', config, '--timeout', '1']);

    assert.equal(offline.code, 0, offline.stderr);
    assert.match(offline.stdout, /\nfrontend web\n {2}mode http\n {2}bind 127\.0\.0\.1:3210\n/);
    assert.equal(silent.code, 1);
    assert.equal(silent.stdout, offline.stdout);
    assert.equal(silent.stderr, 'tandem: web: its source did not answer in time\n');
  });

  test('render with a registry in memory needs no other, and has no servers', async () => {
    const host = HOST.replace(/^registry.*$/m, 'registry: { memory: {} }');
    const config = path.join(await configure({ host }), 'tandem.yaml');

    const finished = await tandem(['render', '--config', config]);

    assert.equal(finished.code, 0, finished.stderr);
    assert.match(finished.stdout, /\nbackend web\n/);
    assert.doesNotMatch(finished.stdout, /\n {2}server /);
  });

  test('render shows what this host would use of each source', async () => {
    const host = HOST.replace(/^registry.*$/m, 'registry: { memory: {} }');
    const text = `service: web
discover:
  listen: 127.0.0.1:3210
  filter: { version: '2' }
  fallback: [{ name: last, host: 10.9.9.9, port: 80 }]
  source: { static: { instances: [{ host: 10.0.0.1, port: 80 }, { host: 10.0.0.2, port: 80, labels: { version: '2' } }] } }
`;
    const used = path.join(await configure({ host, services: { 'web.yaml': text } }), 'tandem.yaml');
    const none = path.join(
      await configure({
        host,
        services: { 'web.yaml': text.replace("version: '2' }\n", "version: '3' }\n") },
      }),
      'tandem.yaml',
    );
    const servers = ({ stdout }: Finished) =>
      [...stdout.matchAll(/\n {2}server \S+ (\S+) /g)].map(([, address]) => address);

    const [filtered, fallback] = [
      await tandem(['render', '--config', used]),
      await tandem(['render', '--config', none]),
    ];

    assert.deepEqual(servers(filtered), ['10.0.0.2:80'], filtered.stderr);
    assert.deepEqual(servers(fallback), ['10.9.9.9:80'], fallback.stderr);
  });

  test('render looks names up as the daemon does, and says what is missing', async () => {
    const registry = HOST.replace(/^registry.*$/m, 'registry: { memory: {} }');
    const host = registry.replace('haproxy: {', 'haproxy: { port_range: { http: 21000-21001, spares: 1 },');
    const source = (...hosts: string[]) =>
      `source: { static: { instances: [${hosts.map((name) => `{ name: i, host: ${name}, port: 80 }`).join()}] } }`;
    const services = {
      'web.yaml': `service: web\ndiscover: { listen: 3210, ${source('localhost', '"999.0.0.1"')} }\n`,
      'last.yaml': `service: last
discover:
  listen: 3211
  filter: { zone: none }
  fallback: [{ name: f, host: localhost, port: 81 }]
  ${source('10.0.0.1')}
`,
      'a.yaml': `service: a\ndiscover: { listen: 127.0.0.1:21000, ${source('10.0.0.2')} }\n`,
      'b.yaml': `service: b\ndiscover: { listen: 127.0.0.1:21001, ${source('10.0.0.3')} }\n`,
    };
    const config = path.join(await configure({ host, services }), 'tandem.yaml');

    const finished = await tandem(['render', '--config', config]);
    const offline = await tandem(['render', '--config', config, '--offline']);

    const servers = [...finished.stdout.matchAll(/\n {2}server \S+ (\S+) /g)].map(([, address]) => address);
    assert.deepEqual(
      new Set(servers),
      new Set(['10.0.0.2:80', '127.0.0.1:80', '127.0.0.1:81']),
      finished.stderr,
    );
    assert.equal(finished.code, 1);
    const unplaced = /^tandem: b: is not there: all 1 spare backends for http are in use.*\n/;
    const rejected =
      'tandem: web: set aside: i_999.0.0.1:80: the host is neither an address nor the name of a host\n';
    assert.match(finished.stderr, unplaced);
    assert.equal(finished.stderr.replace(unplaced, ''), rejected);
    assert.equal(offline.code, 1);
    assert.equal(offline.stderr.replace(unplaced, ''), '');
  });

  test('wrong usage exits with 2 and points to the help', async () => {
    for (const args of [
      [],
      ['registre'],
      ['check', '--confg', 'x'],
      ['demo', '--seconds', '1'],
      ['check', '--config'],
      ['hold', 'web'],
      ['release'],
      ['release', 'web', 'one', '--all'],
    ]) {
      const finished = await tandem(args);

      assert.equal(finished.code, 2, `${args.join(' ')}: ${finished.stderr}`);
      assert.match(finished.stderr, /^tandem: .*\nTry "tandem --help"\.\n$/s);
      assertNoStack(finished);
    }
  });

  test('every command has a help with an example', async () => {
    for (const command of ['register', 'discover', 'check', 'render', 'status', 'hold', 'release', 'demo']) {
      const finished = await tandem([command, '--help']);

      assert.equal(finished.code, 0);
      assert.match(finished.stdout, new RegExp(`Examples:\\s+tandem ${command}`));
    }
  });
});
