import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { RegisterSection, RegistrarSection } from '@tandem/registrar';

import { root, run, tandem } from '../support/tandem.ts';

/** The names of all keys that a section of a file may have, at any depth. */
function keysOf(section: typeof RegistrarSection | typeof RegisterSection): string[] {
  const names: string[] = [];
  const schema = section.toJSONSchema({ io: 'input', unrepresentable: 'any' });
  JSON.stringify(schema, (name, value: unknown) => {
    if (name === 'properties') names.push(...Object.keys(value as object));
    return value;
  });
  return names;
}

const deploy = path.join(root, 'deploy');

describe('what is deployed', () => {
  for (const sample of ['examples/tandem.yaml', 'examples/external.yaml', 'container/tandem.yaml']) {
    test(`the sample ${sample} and its services pass the check`, async () => {
      const finished = await tandem(['check', '--config', path.join(deploy, sample)]);

      assert.equal(finished.code, 0, finished.stderr);
    });
  }

  test('the examples show every key of a registrar, of a registration, and of each kind of check', async () => {
    const files = [
      'tandem.yaml',
      ...(await readdir(path.join(deploy, 'examples/services.d'))).map((name) => `services.d/${name}`),
    ];
    const texts = await Promise.all(
      files.map((name) => readFile(path.join(deploy, 'examples', name), 'utf8')),
    );
    const words = new Set(texts.join('\n').match(/[a-z][a-z0-9_]*(?=[`:])/g));

    const missing = [RegistrarSection, RegisterSection].flatMap(keysOf).filter((key) => !words.has(key));

    assert.deepEqual(missing, []);
  });

  test('the configuration in the README passes the check', async () => {
    const readme = await readFile(path.join(root, 'README.md'), 'utf8');
    const blocks = [...readme.matchAll(/```yaml\n# (\S+)\n(.*?)```/gs)];
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-readme-'));
    try {
      assert.equal(blocks.length, 2, 'a host file and a service file');
      for (const [, file = '', text = ''] of blocks) {
        const target = path.join(directory, path.relative('/etc/tandem', file));
        await run('mkdir', ['-p', path.dirname(target)]);
        await writeFile(target, text);
      }

      const finished = await tandem(['check', '--config', path.join(directory, 'tandem.yaml')]);

      assert.equal(finished.code, 0, finished.stderr);
      assert.match(finished.stdout, /1 registered, 1 discovered/);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test('systemd takes the units', async () => {
    const directory = path.join(deploy, 'systemd');
    const units = (await readdir(directory)).filter((name) => name.endsWith('.service'));
    assert.equal(units.length, 2);

    // The paths of an installation are not those of this machine: what the units run stands in for it.
    const copy = await mkdtemp(path.join(tmpdir(), 'tandem-units-'));
    try {
      for (const unit of units) {
        const text = await readFile(path.join(directory, unit), 'utf8');
        assert.match(text, /^Type=notify$/m);
        assert.match(text, /^NotifyAccess=all$/m);
        assert.match(text, /^WatchdogSec=\d+s$/m);
        assert.match(text, /^User=tandem$/m);
        // A daemon that hangs has to be killed in the end.
        assert.doesNotMatch(text, /^SendSIGKILL=no$/m);
        await writeFile(path.join(copy, unit), text.replaceAll('/usr/bin/node', process.execPath));
      }

      const finished = await run('systemd-analyze', [
        'verify',
        ...units.map((unit) => path.join(copy, unit)),
      ]);

      assert.equal(finished.code, 0, finished.stderr);
      assert.doesNotMatch(finished.stderr, /tandem-\w+\.service/);
    } finally {
      await rm(copy, { recursive: true, force: true });
    }
  });

  test('the bundles hold everything that a daemon needs', async () => {
    const bundled = await run(process.execPath, [path.join(deploy, 'bundle.mjs')]);
    assert.equal(bundled.code, 0, bundled.stderr);
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-bundle-'));
    await using zookeeper = await startEmbeddedZooKeeper();
    try {
      // Away from node_modules, as on a host.
      await run('cp', ['-r', path.join(root, 'bundle'), directory]);
      await run('mkdir', [path.join(directory, 'services.d')]);
      await writeFile(
        path.join(directory, 'services.d', 'web.yaml'),
        'service: web\nregister: { port: 8080 }\n',
      );
      const config = path.join(directory, 'tandem.yaml');
      await writeFile(
        config,
        `host: { name: h, address: 127.0.0.1 }
registry: { zookeeper: { servers: ['${zookeeper.connectString}'] } }
state_dir: state
haproxy: { config_file: run/haproxy.cfg, runtime_socket: run/haproxy.sock, on_exit: stop }
`,
      );

      const checked = await run(process.execPath, [
        path.join(directory, 'bundle', 'tandem.mjs'),
        'check',
        '-c',
        config,
      ]);
      assert.match(checked.stdout, /^ok: /, checked.stderr);
      const live = async (name: string, sign: RegExp) => {
        const daemon = path.join(directory, 'bundle', `tandem-${name}.mjs`);
        // `timeout` asks it to end with SIGTERM, as an init system would.
        const finished = await run('timeout', ['8', process.execPath, daemon, '--config', config]);

        assert.match(finished.stdout, sign, finished.stdout + finished.stderr);
        assert.match(finished.stdout, /"stopped"/);
        assert.equal(finished.stderr, '');
      };
      // Side by side, as on a host.
      await Promise.all([live('registrar', /"announced"/), live('discovery', /"HAProxy serves"/)]);
      assert.deepEqual(
        zookeeper.sessions().flatMap(({ ephemerals }) => ephemerals),
        [],
      );
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test('setup does nothing when nothing is missing', async () => {
    const finished = await run('sh', [path.join(deploy, 'setup.sh')], { limitMs: 300_000 });
    const again = await run('sh', [path.join(deploy, 'setup.sh')]);

    assert.equal(finished.code, 0, finished.stderr);
    assert.deepEqual(again, { code: 0, stdout: 'setup: nothing to do\n', stderr: '' });
  });

  test('setup says what to install where there is no apt', async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-path-'));
    try {
      for (const tool of ['sh', 'dirname', 'mktemp', 'rm', 'id', 'printf', 'cat']) {
        await run('sh', ['-c', `ln -s "$(command -v ${tool})" ${directory}/${tool}`]);
      }
      await run('ln', ['-s', process.execPath, path.join(directory, 'node')]);
      await run('sh', ['-c', `ln -s "$(command -v npm)" ${directory}/npm`]);

      const finished = await run('sh', [path.join(deploy, 'setup.sh')], {
        env: { PATH: directory, TANDEM_SYSTEM_PATH: directory },
      });

      assert.equal(finished.code, 1, finished.stdout);
      assert.match(finished.stderr, /there is no apt-get here\. Install: haproxy default-jre-headless/);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
