// How a server is found, reached and told who we are: names and addresses, TLS, digest authentication, chroot. Each on a
// real ZooKeeper.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { silentLog } from '@tandem/core';
import { type Registry, RegistrySection } from '@tandem/registry';
import { openZooKeeperRegistry } from '@tandem/registry/testing';

import { registryConformance } from '../conformance/registry.ts';
import { zookeeperSubject } from '../conformance/zookeeper.ts';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { endLater, follow, instanceOf, limit, listen, nodesOf, noSurprises } from '../support/registries.ts';
import { connectWire, type WireClient, zk } from '../support/zookeeper-wire.ts';

const CONNECTED = 'connected to ZooKeeper';
const NO_AUTH = -102;
const AUTH_FAILED = -115;
/** Length and number of the answer to an AUTH packet. */
const AUTH_ANSWER = Buffer.from('00000010fffffffc', 'hex');

let directory = '';
let trusted: Authority;
let strange: Authority;
let plain: RealZooKeeper;
let secure: RealZooKeeper;
let count = 0;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'tandem-transport-'));
  [trusted, strange] = await Promise.all([
    createAuthority(directory, 'trusted'),
    createAuthority(directory, 'strange'),
  ]);
  const { bothFile } = await trusted.issue('server', ['DNS:zk.test', 'IP:127.0.0.1']);
  [plain, secure] = await Promise.all([
    startRealZooKeeper(),
    startRealZooKeeper({ tls: { keyStore: bothFile, trustStore: trusted.caFile } }),
  ]);
});
after(async () => {
  await Promise.all([plain.stop(), secure.stop()]);
  await rm(directory, { recursive: true, force: true });
});
noSurprises();

type Section = Record<string, unknown> & { servers: readonly string[] };
type Options = Partial<Parameters<typeof openZooKeeperRegistry>[0]>;

/** A registry as a person would write it in the host file. */
async function open(section: Section, options: Options = {}) {
  const { log, lines, said } = listen();
  const parsed = RegistrySection.parse({ zookeeper: { session_timeout: '4s', ...section } });
  assert.ok(parsed.kind === 'zookeeper');
  const { zookeeper: config } = parsed;
  const registry = await openZooKeeperRegistry({ config, log, ...options });
  endLater(() => registry.close());
  const becomes = (state: Registry['status']['state']) =>
    eventually(() => assert.equal(registry.status.state, state));
  return {
    registry,
    lines,
    said,
    becomes,
    sessions: () => said(CONNECTED).map(({ facts }) => facts['session']),
    servers: () => said(CONNECTED).map(({ facts }) => facts['server']),
    [Symbol.asyncDispose]: () => registry.close(),
  };
}

function freshPath(): string {
  count += 1;
  return `/transport/${count}`;
}

async function announce(registry: Registry, at: string, ...instance: Parameters<typeof instanceOf>) {
  const announcer = registry.announce(at, instanceOf(...instance));
  announcer.set(instanceOf(...instance));
  await announcer.agreed(limit());
  return announcer;
}

async function fileOf(content: string): Promise<string> {
  count += 1;
  const file = path.join(directory, `file-${count}`);
  await writeFile(file, content, { mode: 0o600 });
  return file;
}

/** A server of the same ensemble that refuses every credential: only its word about them is changed on the way. */
async function startRefusing(target: number) {
  let refusals = 0;
  const listener = createServer((client) => {
    const server = connect({ port: target, host: '127.0.0.1' });
    client.on('error', () => {}).on('close', () => server.destroy());
    server.on('error', () => {}).on('close', () => client.destroy());
    client.pipe(server);
    server.on('data', (chunk: Buffer) => {
      const at = chunk.indexOf(AUTH_ANSWER);
      if (at < 0) {
        client.write(chunk);
        return;
      }
      chunk.writeInt32BE(AUTH_FAILED, at + 16);
      client.end(chunk);
      refusals += 1;
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return {
    port: (listener.address() as AddressInfo).port,
    count: () => refusals,
    async [Symbol.asyncDispose]() {
      listener.close();
      await once(listener, 'close');
    },
  };
}

function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}

describe('registry transport: names and addresses', { concurrency: true }, () => {
  test('a server at an IPv6 address is reached by its literal', async () => {
    await using server = await startRealZooKeeper({ host: '::1' });
    await using scene = await open({ servers: [server.connectString] });
    await announce(scene.registry, '/web', 'i-1');
    const watcher = follow(scene.registry, '/web');
    await watcher.shows('i-1');
    assert.deepEqual(scene.servers(), [`[::1]:${server.port}`]);
    await watcher.stop();
  });

  test('every address of a name gets its turn: a mute one and a dead one are not tried for ever', async () => {
    await using mute = await startFaultProxy(plain.port, { host: '127.0.0.2', port: plain.port });
    mute.acceptOnly();
    let asked = 0;
    const resolve = () => {
      asked += 1;
      const bad = ['127.0.0.2', '127.0.0.3'];
      return Promise.resolve(asked === 1 ? bad : [...bad, '127.0.0.1']);
    };
    await using scene = await open({ servers: [`zk.test:${plain.port}`] }, { resolve });
    await scene.becomes('connected');
    assert.ok(mute.accepted >= 1 && asked >= 2, `${mute.accepted} attempts, ${asked} lookups`);
    assert.deepEqual(scene.servers(), [`zk.test:${plain.port} (127.0.0.1)`]);
  });

  test('a name that means another address by now is followed at the next connect, with the same session', async () => {
    await using proxy = await startFaultProxy(plain.port, { host: '127.0.0.4', port: plain.port });
    let address = '127.0.0.4';
    const resolve = () => Promise.resolve([address]);
    await using scene = await open({ servers: [`zk.test:${plain.port}`] }, { resolve });
    const at = freshPath();
    await announce(scene.registry, at, 'i-1');
    const nodes = await nodesOf(plain.port).children(at);
    address = '127.0.0.1';
    proxy.acceptThenClose();
    proxy.kill();
    await eventually(() => assert.equal(scene.sessions().length, 2));
    assert.match(String(scene.servers()[1]), /\(127\.0\.0\.1\)$/);
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
    assert.deepEqual(await nodesOf(plain.port).children(at), nodes);
    assert.equal(proxy.open, 0);
  });

  for (const [outage, answer] of [
    ['fails', () => Promise.reject(new Error('getaddrinfo EAI_AGAIN zk.test'))],
    ['is silent', () => new Promise<never>(() => {})],
  ] as const) {
    test(`a resolver that ${outage} is no event: the addresses that a name had are used`, async () => {
      await using proxy = await startFaultProxy(plain.port);
      let isOut = false;
      const resolve = () => (isOut ? answer() : Promise.resolve(['127.0.0.1']));
      await using scene = await open({ servers: [`zk.test:${proxy.port}`] }, { resolve });
      const at = freshPath();
      await announce(scene.registry, at, 'i-1');
      const watcher = follow(scene.registry, at);
      await watcher.shows('i-1');
      isOut = true;
      for (const connects of [2, 3]) {
        proxy.kill();
        await eventually(() => assert.equal(scene.sessions().length, connects));
      }
      assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
      const told = scene.said('cannot resolve');
      assert.ok(told.length <= 1, 'once at most');
      if (outage === 'fails') assert.match(String(told[0]?.facts['reason']), /EAI_AGAIN/);
      await announce(scene.registry, at, 'i-2', 1);
      await watcher.shows('i-1', 'i-2:1');
      await watcher.stop();
    });
  }

  test('a name that never resolves is told of once with its reason, while another server gets its turn', async () => {
    const resolve = (host: string) => Promise.reject(new Error(`getaddrinfo ENOTFOUND ${host}`));
    const dead = `nowhere.test:${plain.port}`;
    await using alone = await open({ servers: [dead] }, { resolve });
    await using scene = await open({ servers: [dead, `127.0.0.1:${plain.port}`] }, { resolve });
    await scene.becomes('connected');
    await eventually(() => assert.equal(alone.said('no connection to ZooKeeper yet').length, 1));
    for (const { said } of [alone, scene])
      assert.deepEqual(
        said('cannot resolve').map(({ facts }) => facts),
        [{ host: 'nowhere.test', reason: 'getaddrinfo ENOTFOUND nowhere.test' }],
      );
    assert.equal(alone.registry.status.state, 'connecting');
  });

  test('a name that resolves late does not hold up an address that is known', async () => {
    const resolve = () => new Promise<never>(() => {});
    await using scene = await open({ servers: ['slow.test', `127.0.0.1:${plain.port}`] }, { resolve });
    await scene.becomes('connected');
    assert.deepEqual(scene.said('cannot resolve'), []);
  });
});

describe('registry transport: TLS', { concurrency: true }, () => {
  test('a server is believed by the authority of its certificate, by address and by name', async () => {
    const resolve = () => Promise.resolve(['127.0.0.1']);
    const at = freshPath();
    const watched = follow((await open({ servers: [secure.connectString] })).registry, at);
    for (const [server, tls] of [
      [`127.0.0.1:${secure.securePort}`, {}],
      [`zk.test:${secure.securePort}`, {}],
      [`other.test:${secure.securePort}`, { server_name: 'zk.test' }],
      [`other.test:${secure.securePort}`, { server_name: '127.0.0.1' }],
    ] as const) {
      await using scene = await open(
        { servers: [server], tls: { ca_file: trusted.caFile, ...tls } },
        { resolve },
      );
      await announce(scene.registry, at, 'i-1', 1);
      await watched.shows('i-1:1');
      const own = follow(scene.registry, at);
      await own.shows('i-1:1');
      await own.stop();
    }
    await watched.stop();
  });

  test('a mute server gives way to another, with TLS too', async () => {
    await using mute = await startFaultProxy(secure.port);
    mute.acceptOnly();
    await using scene = await open({
      servers: [`127.0.0.1:${mute.port}`, `127.0.0.1:${secure.securePort}`],
      tls: { ca_file: trusted.caFile },
    });
    await scene.becomes('connected');
    assert.deepEqual(scene.servers(), [`127.0.0.1:${secure.securePort}`]);
  });

  test('what TLS refuses is told of once per server and reason, with what to do', async () => {
    const port = secure.securePort;
    const resolve = () => Promise.resolve(['127.0.0.1']);
    const own = { ca_file: trusted.caFile };
    for (const [servers, tls, reason, remedy] of [
      [[`127.0.0.1:${port}`], { ca_file: strange.caFile }, /UNABLE_TO_VERIFY_LEAF|SELF_SIGNED/, /ca_file/],
      [[`127.0.0.1:${port}`], {}, /UNABLE_TO_VERIFY_LEAF|SELF_SIGNED/, /ca_file/],
      [[`other.test:${port}`], own, /ALTNAME_INVALID.*DNS:zk\.test/, /server_name/],
      [[`127.0.0.1:${port}`], { ...own, server_name: '127.0.0.9' }, /ALTNAME_INVALID/, /server_name/],
      [[secure.connectString], own, /disconnected|EPROTO|ECONNRESET|wrong version/, undefined],
    ] as const) {
      await using scene = await open({ servers, tls }, { resolve });
      const told = await eventually(() => {
        const found = scene
          .said('no TLS connection')
          .find(({ facts }) => reason.test(String(facts['reason'])));
        assert.ok(found !== undefined);
        return found;
      });
      await eventually(() => assert.ok(scene.said('cannot reach a ZooKeeper server').length >= 3));
      const reasons = scene.said('no TLS connection').map(({ facts }) => facts['reason']);
      assert.equal(new Set(reasons).size, reasons.length, 'each once, not at every attempt');
      assert.match(String(told.facts['server']), /^(127\.0\.0\.1|other\.test):\d+/);
      if (remedy !== undefined) assert.match(String(told.facts['remedy']), remedy);
      assert.equal(scene.registry.status.state, 'connecting');
    }
  });

  test('an authority that is exchanged counts from the next connect; half a file does not, and is told of once', async () => {
    await using proxy = await startFaultProxy(secure.securePort);
    const ca = await fileOf(await readFile(strange.caFile, 'utf8'));
    await using scene = await open({ servers: [`127.0.0.1:${proxy.port}`], tls: { ca_file: ca } });
    await eventually(() => assert.ok(scene.said('no TLS connection').length > 0));
    await copyFile(trusted.caFile, ca);
    await scene.becomes('connected');
    const whole = await readFile(ca, 'utf8');
    await writeFile(ca, whole.slice(0, -60));
    for (const connects of [2, 3]) {
      proxy.kill();
      await eventually(() => assert.equal(scene.sessions().length, connects));
    }
    const told = scene.said('cannot be used, going on');
    assert.equal(told.length, 1);
    assert.match(
      String(told[0]?.facts['reason']),
      /^registry\.zookeeper\.tls\.ca_file: .* holds no certificate/,
    );
    await writeFile(ca, whole);
    proxy.kill();
    await eventually(() => assert.equal(scene.said('can be used again').length, 1));
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
  });

  test('a server that asks for a certificate gets ours; without one it is told what is missing', async () => {
    const server = await trusted.issue('asking', ['IP:127.0.0.1']);
    const client = await trusted.issue('client', ['DNS:client.test']);
    await using asking = await startRealZooKeeper({
      tls: { keyStore: server.bothFile, trustStore: trusted.caFile, needsClientCertificate: true },
    });
    const servers = [`127.0.0.1:${asking.securePort}`];
    const ca_file = trusted.caFile;
    await using without = await open({ servers, tls: { ca_file } });
    await using scene = await open({
      servers,
      tls: { ca_file, cert_file: client.certFile, key_file: client.keyFile },
    });
    await announce(scene.registry, '/web', 'i-1');
    await eventually(() => {
      const reasons = without.said('no TLS connection').map(({ facts }) => String(facts['reason']));
      assert.ok(
        reasons.some((reason) => /certificate|hung up/i.test(reason)),
        reasons.join(),
      );
    });
    assert.equal(without.registry.status.state, 'connecting');
  });

  test('an expired certificate is refused', async () => {
    const expired = await trusted.issue('expired', ['IP:127.0.0.1'], { days: 0 });
    await sleep(1000);
    await using server = await startRealZooKeeper({
      tls: { keyStore: expired.bothFile, trustStore: trusted.caFile },
    });
    await using scene = await open({
      servers: [`127.0.0.1:${server.securePort}`],
      tls: { ca_file: trusted.caFile },
    });
    await eventually(() => {
      const reasons = scene.said('no TLS connection').map(({ facts }) => facts['reason']);
      assert.match(reasons.join(), /CERT_HAS_EXPIRED/);
    });
  });
});

describe('registry transport: credentials', { concurrency: true }, () => {
  test('with creator-all, who has no credentials may not read, and a session is resumed with its nodes', async () => {
    const chroot = freshPath();
    await using proxy = await startFaultProxy(plain.port);
    const resumeFile = path.join(directory, 'resume.json');
    const section = {
      servers: [`127.0.0.1:${proxy.port}`],
      chroot,
      auth: { scheme: 'digest', credentials_file: await fileOf('fleet:secret\n') },
      acl: 'creator-all',
      session_timeout: '10s',
    };
    const first = await open(section, { resumeFile });
    await announce(first.registry, '/web', 'i-1');
    const watcher = follow(first.registry, '/web');
    await watcher.shows('i-1');

    const wire = await connectWire(plain.port);
    const children = (await childrenAs(wire)).map(String);
    const made = [chroot, `${chroot}/web`, ...children.map((child) => `${chroot}/web/${child}`)];
    assert.equal(made.length, 3);
    const stranger = await connectWire(plain.port);
    for (const node of made) {
      const { acl = [] } = await zk.getAcl(wire, node);
      assert.deepEqual(
        acl.map(({ permissions, scheme, id }) => [permissions, scheme, String(id).split(':')[0]]),
        [[31, 'digest', 'fleet']],
        node,
      );
      assert.equal((await zk.getData(stranger, node)).code, NO_AUTH);
    }

    // Watches are set again after the connection is lost, which the server allows only to who it knows.
    proxy.kill();
    await eventually(() => assert.equal(first.sessions().length, 2));
    await announce(first.registry, '/web', 'i-2');
    await watcher.shows('i-1', 'i-2');
    await watcher.stop();
    await first.registry.close({ keep: true });

    await using second = await open(section, { resumeFile });
    await announce(second.registry, '/web', 'i-1');
    second.registry.withdrawUnclaimed();
    await eventually(async () =>
      assert.deepEqual((await childrenAs(wire)).map(String), children, 'the node of the first life'),
    );
    assert.deepEqual(second.sessions(), first.sessions().slice(1));
    for (const client of [wire, stranger]) client.destroy();

    async function childrenAs(client: WireClient) {
      await zk.auth(client, 'digest', 'fleet:secret');
      return (await zk.getChildren(client, `${chroot}/web`)).children ?? [];
    }
  });

  test('a wrong password shows as NO_AUTH with the path and the settings to look at', async () => {
    const chroot = freshPath();
    const servers = [plain.connectString];
    const auth = async (proof: string) => ({ credentials_file: await fileOf(proof) });
    await using right = await open({ servers, chroot, auth: await auth('fleet:secret'), acl: 'creator-all' });
    await announce(right.registry, '/web', 'i-1');
    await using wrong = await open({ servers, chroot, auth: await auth('fleet:guess'), acl: 'creator-all' });
    const watcher = follow(wrong.registry, '/web');
    wrong.registry.announce('/web', instanceOf('i-2')).set(instanceOf('i-2'));
    for (const message of ['could not read the instances', 'the registry did not take it']) {
      const [told] = await eventually(() => {
        const said = wrong.said(message);
        assert.ok(said.length > 0);
        return said;
      });
      assert.match(String(told?.facts['err']), /\/web: NO_AUTH; compare registry\.zookeeper\.auth/);
    }
    assert.deepEqual(watcher.snapshots, [], 'silent, never partial');
    await watcher.stop();
  });

  test('refused credentials are tried again: once the server is mended, everything goes on by itself', async () => {
    const properties: Record<string, string> = {};
    await using server = await startRealZooKeeper({ properties });
    const auth = { credentials_file: await fileOf('fleet:secret') };
    const section = { servers: [server.connectString], auth, acl: 'creator-all', session_timeout: '10s' };
    await using before = await open(section, { refusedMs: 300 });
    const standing = await announce(before.registry, '/web', 'i-1', 1);
    const watcher = follow(before.registry, '/web');
    await watcher.shows('i-1:1');

    properties['zookeeper.DigestAuthenticationProvider.enabled'] = 'false';
    await server.kill();
    await server.start();
    await before.becomes('failed');
    await using later = await open(section, { refusedMs: 300 });
    await later.becomes('failed');
    const added = later.registry.announce('/web', instanceOf('i-2'));
    added.set(instanceOf('i-2', 2));
    standing.set(instanceOf('i-1', 3));
    const other = follow(later.registry, '/web');
    await sleep(2000);
    for (const { said, registry } of [before, later]) {
      assert.equal(registry.status.state, 'failed');
      const told = said('refused the credentials').filter(({ facts }) => 'remedy' in facts);
      assert.equal(told.length, 1, 'once, not at every attempt');
      assert.equal(told[0]?.facts['server'], server.connectString);
      assert.deepEqual(said('the registry did not take it'), []);
    }

    delete properties['zookeeper.DigestAuthenticationProvider.enabled'];
    await server.kill();
    await server.start();
    await Promise.all([before.becomes('connected'), later.becomes('connected')]);
    await Promise.all([standing, added].map((announcer) => announcer.agreed(limit())));
    for (const follower of [watcher, other]) await follower.shows('i-1:3', 'i-2:2');
    assert.equal(new Set(before.sessions()).size, 1, 'the same session');
    await Promise.all([watcher.stop(), other.stop()]);
  });

  test('one server that refuses the credentials gives way to one that takes them, with the same session', async () => {
    await using refusing = await startRefusing(plain.port);
    await using proxy = await startFaultProxy(plain.port);
    const auth = { credentials_file: await fileOf('fleet:secret') };
    const servers = [`127.0.0.1:${refusing.port}`, `127.0.0.1:${proxy.port}`];
    await using scene = await open({ servers, auth });
    const at = freshPath();
    await announce(scene.registry, at, 'i-1', 1);
    const nodes = await nodesOf(plain.port).children(at);
    const watcher = follow(scene.registry, at);
    await watcher.shows('i-1:1');
    for (const connects of [2, 3, 4]) {
      proxy.kill();
      await eventually(() => assert.equal(scene.sessions().length, connects));
    }
    assert.ok(refusing.count() >= 3, `${refusing.count()} refusals`);
    assert.deepEqual(new Set(scene.servers()), new Set([`127.0.0.1:${proxy.port}`]));
    assert.deepEqual(scene.said('ZooKeeper refused the credentials'), []);
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
    assert.deepEqual(await nodesOf(plain.port).children(at), nodes);
    await announce(scene.registry, at, 'i-2', 2);
    await watcher.shows('i-1:1', 'i-2:2');
    await watcher.stop();
  });

  test('a missing file ends the start with its key and what to do; one that others may read is told of', async () => {
    const servers = [plain.connectString];
    const missing = path.join(directory, 'missing');
    for (const [section, message] of [
      [
        { auth: { credentials_file: missing } },
        /^registry\.zookeeper\.auth\.credentials_file: .*missing does not exist/,
      ],
      [{ auth: { credentials_file: await fileOf('nobody') } }, /does not hold a user and a password/],
      [
        { tls: { ca_file: missing } },
        /^registry\.zookeeper\.tls\.ca_file: .*missing does not exist\. Create it/,
      ],
      [{ tls: { ca_file: await fileOf('nothing') } }, /ca_file: .* holds no certificate/],
      [
        { tls: { cert_file: trusted.caFile, key_file: (await strange.issue('x', ['DNS:x'])).keyFile } },
        /key_file: .* holds no key that fits the certificate/,
      ],
    ] as const)
      await assert.rejects(open({ servers, ...section }), { code: 'CONFIG_INVALID', message });
    const readable = path.join(directory, 'readable');
    await writeFile(readable, 'fleet:secret', { mode: 0o644 });
    await using scene = await open({ servers, auth: { credentials_file: readable } });
    const [told, ...more] = scene.said('others may read the credentials');
    assert.deepEqual([told?.facts['file'], told?.facts['mode'], more], [readable, '0644', []]);
    assert.ok(!JSON.stringify(scene.lines).includes('secret'));
  });
});

describe('registry transport: chroot', { concurrency: true }, () => {
  test('it is made when it is missing, also when it vanishes later', async () => {
    const chroot = `${freshPath()}/a/b`;
    await using scene = await open({ servers: [plain.connectString], chroot });
    const watcher = follow(scene.registry, '/web');
    await watcher.shows();
    await announce(scene.registry, '/web', 'i-1');
    await watcher.shows('i-1');
    await nodesOf(plain.port).remove(chroot);
    await eventually(async () =>
      assert.equal((await nodesOf(plain.port, chroot).children('/web')).length, 1),
    );
    await watcher.shows('i-1');
    await watcher.stop();
  });

  test('an ancestor that is closed to us does not keep us from what is open below it', async () => {
    const closed = freshPath();
    const wire = await connectWire(plain.port);
    await nodesOf(plain.port).create(closed);
    await nodesOf(plain.port).create(`${closed}/ours`);
    await zk.auth(wire, 'digest', 'admin:secret');
    assert.equal((await zk.setAcl(wire, closed, [{ permissions: 31, scheme: 'auth', id: '' }])).code, 0);
    await using scene = await open({ servers: [plain.connectString], chroot: `${closed}/ours/deep` });
    const at = '/services/web';
    const announcing = Array.from({ length: 8 }, (_, index) =>
      announce(scene.registry, `${at}-${index}`, 'i-1'),
    );
    await Promise.all(announcing);
    const watcher = follow(scene.registry, `${at}-0`);
    await watcher.shows('i-1');
    await watcher.stop();
    wire.destroy();
  });
});

registryConformance('ZooKeeper registry by TLS, with credentials', async () => {
  count += 1;
  const tls = { caFile: trusted.caFile, certFile: undefined, keyFile: undefined, serverName: undefined };
  const auth = { scheme: 'digest' as const, credentialsFile: await fileOf('fleet:secret') };
  const settings = { clientPort: secure.securePort, tls, auth };
  return zookeeperSubject(secure.port, `/conformance/${count}`, settings);
});

describe('registry transport: the end', () => {
  test('nothing is left behind by a close in a lookup, in a TLS handshake, or while credentials are refused', async () => {
    await using mute = await startFaultProxy(1);
    mute.acceptOnly();
    await using refusing = await startRealZooKeeper({
      properties: { 'zookeeper.DigestAuthenticationProvider.enabled': 'false' },
    });
    const auth = { credentials_file: await fileOf('fleet:secret') };
    const before = timers();
    for (const [section, options] of [
      [{ servers: ['zk.test'] }, { resolve: () => new Promise<never>(() => {}) }],
      [{ servers: [`127.0.0.1:${mute.port}`], tls: { ca_file: trusted.caFile } }, {}],
      [{ servers: [refusing.connectString], auth }, { refusedMs: 60_000 }],
    ] as const) {
      const { registry } = await open(section, { ...options, log: silentLog });
      registry.announce('/web', instanceOf('i-1')).set(instanceOf('i-1'));
      await sleep(500);
      const since = performance.now();
      await registry.close();
      assert.ok(performance.now() - since < 1000);
      assert.ok(timers() <= before, `${timers()} timers, ${before} before`);
    }
    await eventually(() => assert.equal(mute.open, 0));
  });
});
