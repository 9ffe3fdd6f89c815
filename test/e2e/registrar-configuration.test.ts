import assert from 'node:assert/strict';
import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../support/eventually.ts';
import { startHttpOrigin } from '../support/origin.ts';
import { createRegistrarHost, type RegistrarHost } from '../support/registrar-host.ts';

function service(name: string, port: number, more = ''): string {
  return `service: ${name}\nregister:\n  port: ${port}\n${more}`;
}

/** The nodes of every service, with their owners: what must not change when nothing has. */
function nodes({ zookeeper }: RegistrarHost): string[] {
  return zookeeper
    .sessions()
    .flatMap(({ id, ephemerals }) => ephemerals.map((node) => `${node} of ${id}`))
    .toSorted();
}

async function startHost(...names: string[]): Promise<RegistrarHost> {
  const host = await createRegistrarHost();
  try {
    for (const [index, name] of names.entries()) await host.write(name, service(name, 8001 + index));
    host.start();
    for (const [index, name] of names.entries()) await host.becomes(name, [8001 + index]);
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
  return host;
}

/** Writes a file beside, and moves it over the old one, as editors and config management do. */
async function moveOver(host: RegistrarHost, name: string, text: string): Promise<void> {
  const next = path.join(host.directory, 'next.yaml');
  await writeFile(next, text);
  await rename(next, path.join(host.servicesDir, `${name}.yaml`));
}

describe('the configuration of a registrar that runs', { timeout: 240_000 }, () => {
  test('is followed: services come, change and go, and no other is touched', async () => {
    await using host = await startHost('web', 'api');
    const before = nodes(host);

    await moveOver(host, 'shop', service('shop', 8003));
    await host.becomes('shop', [8003]);
    assert.deepEqual(
      nodes(host).filter((node) => !node.includes('/shop/')),
      before,
    );
    await moveOver(host, 'shop', service('shop', 8003, '  weight: 7\n'));
    await eventually(() => assert.equal(host.seen('shop')?.[0]?.weight, 7), { withinMs: 30_000 });
    await moveOver(host, 'shop', service('shop', 8003, '  weight: 7\n  # a comment\n'));
    await host.remove('shop');
    await host.becomes('shop', []);

    assert.deepEqual(nodes(host), before);
    assert.ok(!host.history('shop').slice(1, -1).includes(''), 'never away while it was configured');
  });

  test('a service whose port changes is announced at the new one before it leaves the old one', async () => {
    await using host = await startHost('web');

    for (const port of [9001, 9002, 8001]) {
      await moveOver(host, 'web', service('web', port));
      await host.becomes('web', [port]);
    }

    // Several changes may reach others as one; what they never see is nobody.
    const seen = host.history('web');
    assert.equal(seen.indexOf(''), -1, `others have seen nobody: ${JSON.stringify(seen)}`);
  });

  test('a port that nobody listens on yet leaves the old one in place until somebody does', async () => {
    const [one, two] = [await startHttpOrigin(), await startHttpOrigin()];
    await using host = await createRegistrarHost();
    const text = (port: number) => service('web', port, '  checks: [{ tcp: { interval: 50ms } }]\n');
    await host.write('web', text(one.port));
    host.start();
    await host.becomes('web', [one.port]);
    await two.close();

    await moveOver(host, 'web', text(two.port));
    await host.untilLogged('health changed', 2);
    assert.deepEqual(
      host.seen('web')?.map(({ port }) => port),
      [one.port],
    );
    await one.close();
    await host.becomes('web', []);
  });

  test('a bad file keeps its last good version, is reported with its place, and hurts no other', async () => {
    await using host = await startHost('web', 'api');
    const before = nodes(host);

    await moveOver(host, 'web', 'service: web\nregister: { prot: 8001, port: 8001 }\n');
    await host.untilLogged('set a service file aside');
    const [entry] = host.logged('set a service file aside');
    assert.equal(entry?.['line'], 2);
    assert.match(String(entry?.['remedy']), /Did you mean "port"\?/);
    await moveOver(host, 'shop', service('shop', 8003));
    await host.becomes('shop', [8003]);
    const table = await host.command('services');
    assert.equal(table.code, 0, table.stderr);
    assert.match(table.stdout, /^! .*web\.yaml:2: .*prot.*Did you mean "port"\?$/m);
    assert.match(table.stdout, /^web +127\.0\.0\.1:8001 +up +yes/m);
    assert.deepEqual(
      nodes(host).filter((node) => !node.includes('/shop/')),
      before,
    );

    await moveOver(host, 'web', service('web', 8009));
    await host.becomes('web', [8009]);
    assert.doesNotMatch((await host.command('services')).stdout, /^!/m);
  });

  test('a file that is written in parts is not taken for what it says halfway', async () => {
    await using host = await startHost('web');
    const text = service('web', 8001, `  labels: { part: "${'x'.repeat(200)}" }\n`);

    for (let end = 1; end < text.length; end += 7) {
      await host.write('web', text.slice(0, end));
      await sleep(5);
    }
    await host.write('web', text);

    await eventually(() => assert.equal(host.seen('web')?.[0]?.labels?.['part']?.length, 200), {
      withinMs: 30_000,
    });
    assert.equal(host.history('web').indexOf(''), -1);
  });

  test('a ConfigMap that is swapped is followed', async () => {
    await using host = await createRegistrarHost();
    const version = async (number: number, text: string) => {
      const directory = path.join(host.servicesDir, `..version-${number}`);
      await mkdir(directory);
      await writeFile(path.join(directory, 'web.yaml'), text);
      await symlink(`..version-${number}`, path.join(host.servicesDir, '..next'));
      await rename(path.join(host.servicesDir, '..next'), path.join(host.servicesDir, '..data'));
    };
    await version(1, service('web', 8001));
    await symlink('..data/web.yaml', path.join(host.servicesDir, 'web.yaml'));
    host.start();
    await host.becomes('web', [8001]);

    await version(2, service('web', 8002));
    await host.becomes('web', [8002]);
    await version(3, service('web', 8003));
    await rm(path.join(host.servicesDir, '..version-2'), { recursive: true });
    await host.becomes('web', [8003]);

    assert.equal(host.history('web').indexOf(''), -1);
  });

  test('a services_dir that is deleted changes nothing, and one that comes back is followed at once', async () => {
    await using host = await startHost('web', 'api');
    const before = nodes(host);

    await rm(host.servicesDir, { recursive: true });
    await host.untilLogged('set a service file aside');
    assert.deepEqual(nodes(host), before);
    await mkdir(host.servicesDir);
    await host.write('web', service('web', 8001));
    await host.becomes('api', []);
    await host.becomes('web', [8001]);
    // As a deployment does it that swaps whole directories.
    const next = path.join(host.directory, 'next');
    await mkdir(next);
    await writeFile(path.join(next, 'web.yaml'), service('web', 8002));
    await rename(host.servicesDir, path.join(host.directory, 'previous'));
    await rename(next, host.servicesDir);
    await host.becomes('web', [8002]);

    assert.equal(host.history('web').indexOf(''), -1);
  });

  test('is read again on SIGHUP, also where the file system tells of no change', async () => {
    await using host = await createRegistrarHost();
    // What a link outside of the directory points to changes without an event in it.
    const outside = path.join(host.directory, 'outside.yaml');
    await writeFile(outside, service('web', 8001));
    await symlink(outside, path.join(host.servicesDir, 'web.yaml'));
    const daemon = host.start();
    await host.becomes('web', [8001]);

    await writeFile(outside, service('web', 8002));
    daemon.kill('SIGHUP');

    await host.becomes('web', [8002]);
  });

  test('survives a registrar that is killed while a file is broken', async () => {
    await using host = await createRegistrarHost();
    await host.write('web', service('web', 8001));
    await host.write('api', service('api', 8002));
    const first = host.start();
    await host.becomes('web', [8001]);
    await host.becomes('api', [8002]);
    // What it remembers comes after what it does.
    const memory = path.join(host.directory, 'state', 'registrar-services.json');
    await eventually(async () => assert.match(await readFile(memory, 'utf8'), /8001.*8002|8002.*8001/));
    const before = nodes(host);

    await host.end(first, 'SIGKILL');
    await host.write('web', 'service: web\nregister: [\n');
    await host.write('api', service('api', 8003));
    host.start();
    await host.becomes('api', [8003]);

    assert.deepEqual(
      nodes(host).filter((node) => node.includes('/web/')),
      before.filter((node) => node.includes('/web/')),
    );
    assert.match((await host.command('services')).stdout, /^! .*web\.yaml:/m);
  });
});
