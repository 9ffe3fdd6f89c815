import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { tandem } from '../support/tandem.ts';

/** What the summary of the demo says about each thing. */
function summaryOf(output: string): Map<string, string> {
  return new Map(
    [...output.matchAll(/^(\S+(?: \S+)*) {2,}(.*)$/gm)].map((match) => [match[1] ?? '', match[2] ?? '']),
  );
}

describe('the demo', () => {
  test('plays its script on the embedded registry, loses no request and keeps every promise', async () => {
    const finished = await tandem(['demo', '--seconds', '15'], { limitMs: 120_000 });

    assert.equal(finished.code, 0, finished.stdout + finished.stderr);
    const summary = summaryOf(finished.stdout);
    assert.equal(summary.get('failed'), '0');
    assert.equal(summary.get('reloads'), '1 (structure-changed)');
    assert.ok(Number(summary.get('requests')) > 1_000, finished.stdout);
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
