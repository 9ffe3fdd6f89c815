import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';

import { eventually } from '../support/eventually.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { tandem } from '../support/tandem.ts';

/** What the summary of the demo says about each thing. */
function summaryOf(output: string): Map<string, string> {
  return new Map(
    [...output.matchAll(/^(\S+(?: \S+)*) {2,}(.*)$/gm)].map((match) => [match[1] ?? '', match[2] ?? '']),
  );
}

/** Commands that still run and name a directory. */
async function runningIn(directory: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return commands.filter((command) => command.includes(directory));
}

describe('the demo', () => {
  test('plays its script on the embedded registry, loses no request and keeps every promise', async () => {
    const finished = await tandem(['demo', '--seconds', '15'], { limitMs: 120_000 });

    assert.equal(finished.code, 0, finished.stdout + finished.stderr);
    const summary = summaryOf(finished.stdout);
    assert.equal(summary.get('failed'), '0');
    assert.equal(summary.get('reloads'), '1 (structure-changed)');
    assert.ok(Number(summary.get('requests')) > 1_000, finished.stdout);
    const directory = /(\S+)\/run\/haproxy\.cfg/.exec(finished.stdout)?.[1] ?? '';
    assert.match(directory, /tandem-demo-/);
    await eventually(async () => assert.deepEqual(await runningIn(directory), []));
  });

  test('does the same on a real ZooKeeper', async () => {
    await using zookeeper = await startRealZooKeeper();

    const finished = await tandem(['demo', '--seconds', '12', '--zookeeper', zookeeper.connectString], {
      limitMs: 120_000,
    });

    assert.equal(finished.code, 0, finished.stdout + finished.stderr);
    assert.equal(summaryOf(finished.stdout).get('failed'), '0');
  });
});
