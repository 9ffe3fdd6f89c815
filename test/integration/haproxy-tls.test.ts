// TLS and the PROXY protocol, against a real HAProxy: in front of a service, and behind it, over changes and reloads.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import https from 'node:https';
import net, { type AddressInfo } from 'node:net';
import { describe, test } from 'node:test';

import { createAuthority, type Authority } from '../support/certificates.ts';
import { createHaproxyWorld, eventually, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';
import { ask } from '../support/load.ts';
import { startHttpOrigin } from '../support/origin.ts';

const timeout = 60_000;

function scenario(name: string, body: (world: HaproxyWorld, authority: Authority) => Promise<void>): void {
  test(name, { timeout }, async () => {
    const world = await createHaproxyWorld();
    try {
      await body(world, await createAuthority(world.directory, 'authority'));
    } catch (error) {
      process.stderr.write(`${world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
      throw error;
    } finally {
      await world.end();
    }
  });
}

/** The body of the answer of a server whose certificate the authority has issued. */
function askSafely(port: number, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, ca, servername: 'web.test', agent: false, timeout: 10_000 };
    const request = https.get(options, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.once('error', reject);
      response.once('end', () => resolve(body));
    });
    request.once('timeout', () => request.destroy(new Error('no answer in time')));
    request.once('error', reject);
  });
}

/** The last line of what is answered to a request that begins with this. */
async function say(port: number, words: string): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  socket.setTimeout(10_000, () => socket.destroy(new Error('no answer in time')));
  socket.write(`${words}GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n`);
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => (text += chunk));
  await once(socket, 'close');
  return text.split('\r\n').at(-1) ?? '';
}

describe('a service that listens with', () => {
  scenario('TLS goes on with it over changes of its members and reloads', async (world, authority) => {
    const { bothFile } = await authority.issue('web', ['DNS:web.test']);
    const ca = await readFile(authority.caFile, 'utf8');
    const [a, b] = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
    try {
      const port = await freePort();
      const section = { bind_options: `ssl crt ${bothFile}` };
      world.registry.say('/services/web', [a.instance('a')]);
      const daemon = world.start([service('web', port, section)]);
      await eventually(async () => assert.equal(await askSafely(port, ca), String(a.port)));
      world.registry.say('/services/web', [b.instance('b')]);
      await world.becomes('web', ['b']);
      assert.equal(await askSafely(port, ca), String(b.port));
      assert.equal(world.reloads(), 0, world.reloadReasons());
      daemon.discovery.update([service('web', port, { ...section, balance: 'leastconn' })]);
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
      await eventually(async () => assert.equal(await askSafely(port, ca), String(b.port)));
      await assert.rejects(ask(port), 'nobody is served without TLS');
    } finally {
      await Promise.all([a.close(), b.close()]);
    }
  });

  scenario('the PROXY protocol goes on with it over changes of its members and reloads', async (world) => {
    const [a, b] = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
    try {
      const port = await freePort();
      const section = { bind_options: 'accept-proxy' };
      const greeting = 'PROXY TCP4 10.1.2.3 10.4.5.6 1000 80\r\n';
      world.registry.say('/services/web', [a.instance('a')]);
      const daemon = world.start([service('web', port, section)]);
      await eventually(async () => assert.equal(await say(port, greeting), String(a.port)));
      world.registry.say('/services/web', [b.instance('b')]);
      await world.becomes('web', ['b']);
      assert.equal(await say(port, greeting), String(b.port));
      daemon.discovery.update([service('web', port, { ...section, balance: 'leastconn' })]);
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
      await eventually(async () => assert.equal(await say(port, greeting), String(b.port)));
      const unheard = await say(port, '').catch(() => '');
      assert.equal(unheard, '', 'who does not greet is not served');
    } finally {
      await Promise.all([a.close(), b.close()]);
    }
  });
});

describe('servers whose certificate is verified', () => {
  scenario(
    'come to a service that has none yet, and are not believed with another one',
    async (world, authority) => {
      const good = await authority.issue('good', ['DNS:web.test']);
      const stranger = await createAuthority(world.directory, 'stranger');
      const bad = await stranger.issue('bad', ['DNS:web.test']);
      const start = async ({ certFile, keyFile }: typeof good) => {
        const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
        const server = https.createServer({ cert, key }, (request, response) => {
          response.end(String(request.socket.localPort));
        });
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
        return { server, port: (server.address() as AddressInfo).port };
      };
      const origins = await Promise.all([start(good), start(good), start(bad)]);
      const [one, two, evil] = origins.map(({ port }) => port);
      const at = (name: string, port = 0) => ({ name, host: '127.0.0.1', port });
      try {
        const port = await freePort();
        world.registry.say('/services/web', []);
        world.start([
          service('web', port, {
            server_options: `ssl verify required ca-file ${authority.caFile}`,
            allow_empty: true,
          }),
        ]);
        await eventually(() => world.workerPid());
        world.registry.say('/services/web', [at('one', one)]);
        await world.becomes('web', ['one']);
        assert.equal(await ask(port), String(one));
        const reloads = world.reloads();
        assert.ok(reloads <= 1, world.reloadReasons());
        world.registry.say('/services/web', [at('one', one), at('two', two)]);
        await world.becomes('web', ['one', 'two']);
        world.registry.say('/services/web', [at('two', two)]);
        await world.becomes('web', ['two']);
        assert.equal(await ask(port), String(two));
        assert.equal(world.reloads(), reloads, world.reloadReasons());
        world.registry.say('/services/web', [at('evil', evil)]);
        await world.becomes('web', ['evil']);
        await assert.rejects(ask(port), /status 503/);
      } finally {
        for (const { server } of origins) {
          server.closeAllConnections();
          server.close();
        }
      }
    },
  );
});
