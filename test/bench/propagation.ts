// A znode changes: how long until HAProxy has it? Ten services of ten instances, one hundred changes, beside two
// floors of the same run: the bare write to ZooKeeper, and a bare runtime command on the same socket.
// Exits with 1 when the median is over its budget.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { readMasterPid, readRunning } from '@tandem/discovery';

import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { root } from '../support/tandem.ts';
import { connectWire, OPEN_ACL, type WireClient, zk } from '../support/zookeeper-wire.ts';
import { HEADER, quantile, row } from './statistics.ts';

const SERVICES = 10;
const INSTANCES = 10;
const CHANGES = 100;
const BUDGET_MS = 10;
const LIMIT_MS = 10_000;
const EPHEMERAL_SEQUENTIAL = 3;

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

function create(client: WireClient, at: string, data: string, flags: number) {
  return zk.create(client, { path: at, data, acl: OPEN_ACL, flags });
}

/** Announces an instance as a registrar would, and returns its node. */
async function announce(client: WireClient, service: string, port: number): Promise<string> {
  const record = JSON.stringify({ host: '127.0.0.1', port, name: 'bench' });
  const { path: node } = await create(client, `/services/${service}/bench_`, record, EPHEMERAL_SEQUENTIAL);
  return String(node);
}

/** One command on a connection of its own, as short as it can be. */
async function ask(socket: string, command: string): Promise<string> {
  const connection = net.connect(socket).setEncoding('utf8');
  let answer = '';
  connection.on('data', (text: string) => {
    answer += text;
  });
  connection.end(`${command}
`);
  await once(connection, 'close');
  return answer;
}

async function timed(task: Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await task;
  return performance.now() - startedAt;
}

async function untilRouted(socket: string, service: string, port: number, wanted: boolean): Promise<number> {
  const giveUpAt = performance.now() + LIMIT_MS;
  while (performance.now() < giveUpAt) {
    // A server is in rotation when its srv_admin_state, the seventh column, is 0 (HAProxy's management guide, 9.3).
    const line = (await ask(socket, `show servers state ${service}`))
      .split('\n')
      .find((text) => text.includes(` bench_127.0.0.1:${port} `));
    if ((line?.split(' ')[6] === '0') === wanted) return performance.now();
    await sleep(1);
  }
  throw new Error(`HAProxy did not follow within ${LIMIT_MS} ms`);
}

const directory = await mkdtemp(path.join(tmpdir(), 'tandem-bench-'));
await mkdir(path.join(directory, 'services.d'));
const services = Array.from({ length: SERVICES }, (_, index) => `service-${index}`);
const ports = await freePorts(SERVICES);
await using zookeeper = await startRealZooKeeper();
const socket = path.join(directory, 'run', 'haproxy.sock');
await writeFile(
  path.join(directory, 'tandem.yaml'),
  `host: { name: bench, address: 127.0.0.1 }
registry: { zookeeper: { servers: ['${zookeeper.connectString}'], session_timeout: 10s } }
state_dir: state
haproxy: { config_file: run/haproxy.cfg, runtime_socket: run/haproxy.sock }
`,
);
for (const [index, service] of services.entries()) {
  const text = `service: ${service}\ndiscover: { listen: '127.0.0.1:${ports[index]}' }\n`;
  await writeFile(path.join(directory, 'services.d', `${service}.yaml`), text);
}

const client = await connectWire(zookeeper.port);
const pinger = setInterval(() => void client.ping(), 2_000);
await create(client, '/services', '', 0);
for (const service of services) {
  await create(client, `/services/${service}`, '', 0);
  for (let index = 0; index < INSTANCES; index += 1) await announce(client, service, 20_000 + index);
}

const output = openSync(path.join(directory, 'discover.log'), 'a');
const main = path.join(root, 'packages', 'cli', 'dist', 'main.js');
const daemon = spawn(process.execPath, [main, 'discover', '--config', path.join(directory, 'tandem.yaml')], {
  stdio: ['ignore', output, output],
});
closeSync(output);

const writes: number[] = [];
const changes: number[] = [];
const commands: number[] = [];
try {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await untilRouted(socket, services.at(-1) ?? '', 20_000 + INSTANCES - 1, true);
      break;
    } catch (error) {
      if (attempt === 200) throw error;
      await sleep(100);
    }
  }
  await sleep(1_000);
  const before = await readRunning(socket);
  for (let change = 0; change < CHANGES / 2; change += 1) {
    const service = services[change % SERVICES] ?? '';
    const port = 21_000 + change;

    let startedAt = performance.now();
    const node = await announce(client, service, port);
    writes.push(performance.now() - startedAt);
    changes.push((await untilRouted(socket, service, port, true)) - startedAt);
    await sleep(20);

    startedAt = performance.now();
    await zk.delete(client, node);
    writes.push(performance.now() - startedAt);
    changes.push((await untilRouted(socket, service, port, false)) - startedAt);
    await sleep(20);

    for (let floor = 0; floor < 2; floor += 1) {
      commands.push(await timed(ask(socket, `set server ${service}/bench_127.0.0.1:20000 weight 1`)));
    }
  }
  const after = await readRunning(socket);
  const reloads = after.incarnation === before.incarnation ? 0 : 1;
  const median = quantile(changes, 0.5);
  console.log(
    `${SERVICES} services x ${INSTANCES} instances, ${changes.length} changes, HAProxy ${after.version}, reloads ${reloads}`,
  );
  console.log(HEADER);
  console.log(row('floor: a bare runtime command on the same socket', commands));
  console.log(row('floor: the write to ZooKeeper alone', writes));
  console.log(row('znode created or deleted -> HAProxy has it', changes));
  console.log(
    `ratio of the medians to the sum of both floors: ${(median / (quantile(commands, 0.5) + quantile(writes, 0.5))).toFixed(1)}`,
  );
  console.log(`budget: median ${BUDGET_MS} ms, ${median <= BUDGET_MS ? 'met' : 'MISSED'}`);
  if (median > BUDGET_MS || reloads > 0) process.exitCode = 1;
} finally {
  clearInterval(pinger);
  client.destroy();
  const pid = await readMasterPid(path.join(directory, 'run', 'haproxy-master.sock')).catch(() => undefined);
  const gone = once(daemon, 'exit');
  daemon.kill('SIGTERM');
  await gone;
  if (pid !== undefined) process.kill(pid, 'SIGTERM');
  await rm(directory, { recursive: true, force: true });
}
